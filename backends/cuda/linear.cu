// linear: y = x wᵀ + bias. Two kernels of our own: `gemv` for few tokens, bound by the weights'
// bytes, and `tiled` for many, which needs nothing but the CUDA cores.
#include "backends/cuda/cuda.h"
#include "backends/cuda/numeric.cuh"
#include "runtime/core/try.h"

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

// ---- few tokens ----

constexpr int kGemvWarps = 4;
constexpr int kGemvTokens = 8;  ///< that share one pass over the weights

/// So many elements that their weights fill sixteen bytes, loaded in sixteen-byte pieces.
template <class Type, int count>
struct Pack {
  alignas(16) Type element[count];
  __device__ static Pack load(const Type* from) {
    static_assert(sizeof(Pack) % 16 == 0);
    Pack pack;
#pragma unroll
    for (int i = 0; i < static_cast<int>(sizeof(Pack) / 16); ++i) {
      reinterpret_cast<uint4*>(&pack)[i] = reinterpret_cast<const uint4*>(from)[i];
    }
    return pack;
  }
};

/// Elements of x that belong to one pack of weights; activations may be narrower than weights.
template <class X, int count>
__device__ inline float dot(const X* x, const float (&w)[count], bool x_packed, float sum) {
  if constexpr (sizeof(X) * count % 16 == 0) {
    if (x_packed) {
      const auto pack = Pack<X, count>::load(x);
#pragma unroll
      for (int k = 0; k < count; ++k) sum = fmaf(to_float(pack.element[k]), w[k], sum);
      return sum;
    }
  }
#pragma unroll
  for (int k = 0; k < count; ++k) sum = fmaf(to_float(x[k]), w[k], sum);
  return sum;
}

/// A warp per output row: lanes stride over the row in packs, several in flight, then add up.
/// `w_packed` and `x_packed`: rows are aligned to sixteen bytes.
template <int tokens, class X, class W, class Y>
__global__ void __launch_bounds__(kGemvWarps * 32)
    gemv(Args args, std::int64_t first, bool w_packed, bool x_packed) {
  constexpr int kCount = 16 / sizeof(W);
  constexpr int kFlight = 4;
  const std::int64_t o = std::int64_t{blockIdx.x} * kGemvWarps + threadIdx.x / 32;
  const int lane = static_cast<int>(threadIdx.x % 32);
  if (o >= args.outputs) return;
  const W* w = static_cast<const W*>(args.w) + o * args.inputs;
  const X* x = static_cast<const X*>(args.x) + first * args.x_row;
  float sums[tokens] = {};
  std::int64_t done = 0;
  if (w_packed) {
    const std::int64_t packs = args.inputs / kCount;
    for (std::int64_t p = lane; p < packs; p += 32 * kFlight) {
      Pack<W, kCount> pack[kFlight];
#pragma unroll
      for (int j = 0; j < kFlight; ++j) {
        if (p + 32 * j < packs) pack[j] = Pack<W, kCount>::load(w + (p + 32 * j) * kCount);
      }
#pragma unroll
      for (int j = 0; j < kFlight; ++j) {
        if (p + 32 * j >= packs) break;
        float weights[kCount];
#pragma unroll
        for (int k = 0; k < kCount; ++k) weights[k] = to_float(pack[j].element[k]);
#pragma unroll
        for (int t = 0; t < tokens; ++t) {
          sums[t] = dot(x + t * args.x_row + (p + 32 * j) * kCount, weights, x_packed, sums[t]);
        }
      }
    }
    done = packs * kCount;
  }
  for (std::int64_t i = done + lane; i < args.inputs; i += 32) {
    const float weight = to_float(w[i]);
#pragma unroll
    for (int t = 0; t < tokens; ++t) {
      sums[t] = fmaf(to_float(x[t * args.x_row + i]), weight, sums[t]);
    }
  }
#pragma unroll
  for (int t = 0; t < tokens; ++t) {
    const float sum = warp_sum(sums[t]);
    if (lane == 0) {
      static_cast<Y*>(args.y)[(first + t) * args.y_row + o] =
          from_float<Y>(sum + (args.bias ? args.bias[o] : 0.0f));
    }
  }
}

std::string supports_gemv(const Call& call, const Device& device) {
  if (call.inputs[0].dim[0] > kGemvTokens) {
    return cat("for at most ", kGemvTokens, " tokens, got ", call.inputs[0].dim[0]);
  }
  return supports_types(call, device);
}

bool aligned(const void* p, std::int64_t row_bytes) {
  return reinterpret_cast<std::uintptr_t>(p) % 16 == 0 && row_bytes % 16 == 0;
}

template <int tokens>
void launch_gemv(const Call& call, const Args& args, std::int64_t first, cudaStream_t stream) {
  with_types(call, [&](auto x, auto w, auto y) {
    using X = decltype(x);
    using W = decltype(w);
    const bool w_packed = aligned(args.w, args.inputs * static_cast<std::int64_t>(sizeof(W)));
    const bool x_packed = aligned(args.x, args.x_row * static_cast<std::int64_t>(sizeof(X)));
    gemv<tokens, X, W, decltype(y)>
        <<<blocks_of(args.outputs, kGemvWarps), kGemvWarps * 32, 0, stream>>>(args, first, w_packed,
                                                                              x_packed);
  });
}

Status run_gemv(const Call& call, const Launch& launch) {
  const Args args = args_of(call);
  if (args.tokens == 0) return {};
  // Whatever the number of tokens, a token's sum is made in the same order.
  std::int64_t first = 0;
  for (; args.tokens - first >= 4; first += 4) launch_gemv<4>(call, args, first, stream_of(launch));
  for (; first < args.tokens; ++first) launch_gemv<1>(call, args, first, stream_of(launch));
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

extern const Kernel linear_gemv_kernel{"linear", "gemv", supports_gemv, run_gemv};
extern const Kernel linear_tiled_kernel{"linear", "tiled", supports_types, run_tiled};

}  // namespace krait::cuda
