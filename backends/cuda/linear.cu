// linear: y = x wᵀ + bias. Two kernels of our own: `gemv` for few tokens, bound by the weights'
// bytes, and `tiled` for many, which needs nothing but the CUDA cores.
#include "backends/cuda/gemv.cuh"

namespace krait::cuda {
namespace {

struct Args {
  const void* x;
  std::int64_t x_row;
  const void* w;
  const float* bias;
  void* y;
  std::int64_t y_row;
  std::int64_t tokens, inputs, outputs;
};

Args args_of(const Call& call) {
  const auto [x, w, bias] = call.in<3>();
  const TensorView& y = call.outputs[0];
  return {x.as<const void>(),
          x.stride[0],
          w.as<const void>(),
          bias ? bias.as<const float>() : nullptr,
          y.as<void>(),
          y.stride[0],
          y.dim[0],
          x.dim[1],
          y.dim[1]};
}

std::string supports_types(const Call& call, const Device&) {
  std::string reason = want_float("x", call.inputs[0]);
  if (reason.empty()) reason = want_float("w", call.inputs[1]);
  return reason.empty() ? want_float("y", call.outputs[0]) : reason;
}

/// Calls body(X{}, W{}, Y{}) with the types of x, w and y.
template <class Body>
void with_types(const Call& call, Body&& body) {
  with_float_type(call.inputs[0].dtype, [&](auto x) {
    with_float_type(call.inputs[1].dtype, [&](auto w) {
      with_float_type(call.outputs[0].dtype, [&](auto y) { body(x, w, y); });
    });
  });
}

std::string supports_gemv(const Call& call, const Device& device) {
  return gemv_supports(call, call.inputs[0], call.inputs[1], device);
}

Status run_few(const Call& call, const Launch& launch) {
  const auto [x, w, bias] = call.in<3>();
  run_gemv(launch, gemv_input(x), w, plain_epilogue(call.outputs[0], bias));
  return launched(call);
}

// ---- many tokens ----

constexpr int kTile = 64;   ///< tokens and outputs of a block
constexpr int kDepth = 16;  ///< inputs staged at a time
constexpr int kThread = 4;  ///< tokens and outputs of a thread
constexpr int kTiledThreads = (kTile / kThread) * (kTile / kThread);

template <class X, class W, class Y>
__global__ void __launch_bounds__(kTiledThreads) tiled(Args args) {
  __shared__ float xs[kDepth][kTile + 4];
  __shared__ float ws[kDepth][kTile + 4];
  const std::int64_t t0 = std::int64_t{blockIdx.y} * kTile;
  const std::int64_t o0 = std::int64_t{blockIdx.x} * kTile;
  const int row = static_cast<int>(threadIdx.x) / (kTile / kThread) * kThread;
  const int column = static_cast<int>(threadIdx.x) % (kTile / kThread) * kThread;
  const X* x = static_cast<const X*>(args.x);
  const W* w = static_cast<const W*>(args.w);
  float sums[kThread][kThread] = {};
  for (std::int64_t i0 = 0; i0 < args.inputs; i0 += kDepth) {
    for (int at = static_cast<int>(threadIdx.x); at < kTile * kDepth; at += kTiledThreads) {
      const int r = at / kDepth, k = at % kDepth;
      const std::int64_t i = i0 + k;
      xs[k][r] =
          t0 + r < args.tokens && i < args.inputs ? to_float(x[(t0 + r) * args.x_row + i]) : 0.0f;
      ws[k][r] =
          o0 + r < args.outputs && i < args.inputs ? to_float(w[(o0 + r) * args.inputs + i]) : 0.0f;
    }
    __syncthreads();
#pragma unroll
    for (int k = 0; k < kDepth; ++k) {
#pragma unroll
      for (int a = 0; a < kThread; ++a) {
#pragma unroll
        for (int b = 0; b < kThread; ++b)
          sums[a][b] = fmaf(xs[k][row + a], ws[k][column + b], sums[a][b]);
      }
    }
    __syncthreads();
  }
  for (int a = 0; a < kThread; ++a) {
    for (int b = 0; b < kThread; ++b) {
      const std::int64_t t = t0 + row + a, o = o0 + column + b;
      if (t >= args.tokens || o >= args.outputs) continue;
      static_cast<Y*>(args.y)[t * args.y_row + o] =
          from_float<Y>(sums[a][b] + (args.bias ? args.bias[o] : 0.0f));
    }
  }
}

Status run_tiled(const Call& call, const Launch& launch) {
  const Args args = args_of(call);
  if (args.tokens == 0) return {};
  with_types(call, [&](auto x, auto w, auto y) {
    const dim3 grid(blocks_of(args.outputs, kTile), blocks_of(args.tokens, kTile));
    tiled<decltype(x), decltype(w), decltype(y)>
        <<<grid, kTiledThreads, 0, stream_of(launch)>>>(args);
  });
  return launched(call);
}

}  // namespace

extern const Kernel linear_gemv_kernel{"linear", "gemv",  supports_gemv, run_few,
                                       nullptr,  nullptr, true};
extern const Kernel linear_tiled_kernel{"linear", "tiled", supports_types, run_tiled};

}  // namespace krait::cuda
