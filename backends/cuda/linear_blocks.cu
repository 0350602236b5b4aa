// linear with block-quantised weights: y = x wᵀ + bias, with w decoded in registers on its way to
// float32 sums. `gemv_blocks` for few tokens, bound by the weights' bytes; `tiled_blocks` for many,
// which needs nothing but the CUDA cores.
#include "backends/cuda/numeric.cuh"
#include "backends/cuda/operands.h"
#include "runtime/core/try.h"

namespace krait::cuda {
namespace {

struct Args {
  const void* x;
  DType x_type;
  std::int64_t x_row;
  UnitMatrix w;
  const float* bias;
  void* y;
  DType y_type;
  std::int64_t y_row;
  std::int64_t tokens, outputs;
};

Args args_of(const Call& call) {
  const auto [x, w, bias] = call.in<3>();
  const TensorView& y = call.outputs[0];
  return {x.as<const void>(),
          x.dtype,
          x.stride[0],
          unit_matrix(w),
          bias ? bias.as<const float>() : nullptr,
          y.as<void>(),
          y.dtype,
          y.stride[0],
          y.dim[0],
          y.dim[1]};
}

std::string supports_blocks(const Call& call, const Device&) {
  std::string reason = want_float("x", call.inputs[0]);
  if (reason.empty()) reason = want_blocks("w", call.inputs[1]);
  return reason.empty() ? want_float("y", call.outputs[0]) : reason;
}

// ---- few tokens ----

constexpr int kGemvWarps = 8;
constexpr int kGemvRows = 2;     ///< of the weights, per warp: they share what is read of x
constexpr int kGemvTokens = 16;  ///< the most

/// Floats from unit to unit of x in shared memory: lanes that read sixteen bytes each of units side
/// by side hit different banks.
constexpr int kUnitStride = kUnit + 4;

/// A warp for two rows of weights: a lane takes every 32nd unit, loads the next while it multiplies
/// one, and the lanes' sums are added up. x waits in shared memory, in float32.
template <DType type, int tokens>
__global__ void __launch_bounds__(kGemvWarps * 32) gemv_blocks(Args args, std::int64_t first) {
  constexpr int kStaged = 256 / tokens;  // units of x in shared memory at a time
  static_assert(kStaged % 32 == 0);
  __shared__ alignas(16) float xs[tokens][kStaged * kUnitStride];
  const int lane = static_cast<int>(threadIdx.x % 32);
  const std::int64_t units = args.w.units;
  const std::int64_t o0 = (std::int64_t{blockIdx.x} * kGemvWarps + threadIdx.x / 32) * kGemvRows;
  const std::byte* rows[kGemvRows];
#pragma unroll
  for (int r = 0; r < kGemvRows; ++r) {
    // Rows beyond the last are read as the last, and not written.
    rows[r] = args.w.data + min(o0 + r, args.outputs - 1) * args.w.row.bytes;
  }
  Unit<type> next[kGemvRows];
  if (lane < units) {
#pragma unroll
    for (int r = 0; r < kGemvRows; ++r) next[r].load(rows[r], args.w.row, lane);
  }
  float sums[kGemvRows][tokens] = {};
  for (std::int64_t u0 = 0; u0 < units; u0 += 32) {
    const int staged = static_cast<int>(u0 % kStaged);
    if (staged == 0) {
      __syncthreads();
      const auto count = static_cast<int>(min(std::int64_t{kStaged}, units - u0)) * kUnit;
#pragma unroll
      for (int t = 0; t < tokens; ++t) {
        const std::int64_t from = (first + t) * args.x_row + u0 * kUnit;
        for (int i = static_cast<int>(threadIdx.x); i < count; i += kGemvWarps * 32) {
          xs[t][i / kUnit * kUnitStride + i % kUnit] = load_float(args.x, args.x_type, from + i);
        }
      }
      __syncthreads();
    }
    if (u0 + lane >= units) continue;
    Unit<type> unit[kGemvRows];
#pragma unroll
    for (int r = 0; r < kGemvRows; ++r) {
      unit[r] = next[r];
      if (u0 + 32 + lane < units) next[r].load(rows[r], args.w.row, u0 + 32 + lane);
    }
#pragma unroll
    for (int j = 0; j < kUnit / 4; ++j) {
      float4 x[tokens];
#pragma unroll
      for (int t = 0; t < tokens; ++t)
        x[t] = *reinterpret_cast<const float4*>(&xs[t][(staged + lane) * kUnitStride + 4 * j]);
#pragma unroll
      for (int r = 0; r < kGemvRows; ++r) {
        float w[4];
        unit[r].weights(j, w);
#pragma unroll
        for (int t = 0; t < tokens; ++t) {
          float sum = sums[r][t];
          sum = fmaf(x[t].x, w[0], sum);
          sum = fmaf(x[t].y, w[1], sum);
          sum = fmaf(x[t].z, w[2], sum);
          sums[r][t] = fmaf(x[t].w, w[3], sum);
        }
      }
    }
  }
#pragma unroll
  for (int r = 0; r < kGemvRows; ++r) {
#pragma unroll
    for (int t = 0; t < tokens; ++t) {
      const float sum = warp_sum(sums[r][t]);
      if (lane == 0 && o0 + r < args.outputs) {
        store_float(args.y, args.y_type, (first + t) * args.y_row + o0 + r,
                    sum + (args.bias ? args.bias[o0 + r] : 0.0f));
      }
    }
  }
}

std::string supports_gemv(const Call& call, const Device& device) {
  if (call.inputs[0].dim[0] > kGemvTokens)
    return cat("for at most ", kGemvTokens, " tokens, got ", call.inputs[0].dim[0]);
  return supports_blocks(call, device);
}

/// Runs as many whole groups of `tokens` as are left from `first` on.
template <int tokens>
void launch_gemv(DType type, const Args& args, std::int64_t& first, cudaStream_t stream) {
  for (; args.tokens - first >= tokens; first += tokens) {
    with_block_type(type, [&](auto t) {
      gemv_blocks<t.value, tokens>
          <<<blocks_of(args.outputs, kGemvWarps * kGemvRows), kGemvWarps * 32, 0, stream>>>(args,
                                                                                            first);
    });
  }
}

Status run_gemv(const Call& call, const Launch& launch) {
  const Args args = args_of(call);
  if (call.outputs[0].elements() == 0) return {};
  // Whatever the number of tokens, a token's sum is made in the same order.
  const DType type = call.inputs[1].dtype;
  std::int64_t first = 0;
  launch_gemv<8>(type, args, first, stream_of(launch));
  launch_gemv<2>(type, args, first, stream_of(launch));
  launch_gemv<1>(type, args, first, stream_of(launch));
  return launched(call);
}

// ---- many tokens ----

constexpr int kTile = 64;   ///< tokens and outputs of a block
constexpr int kThread = 4;  ///< tokens and outputs of a thread
constexpr int kTiledThreads = (kTile / kThread) * (kTile / kThread);

/// A unit's depth of x and of w at a time in shared memory, w decoded.
template <DType type>
__global__ void __launch_bounds__(kTiledThreads) tiled_blocks(Args args) {
  __shared__ alignas(16) float xs[kUnit][kTile + 4];
  __shared__ alignas(16) float ws[kUnit][kTile + 4];
  const std::int64_t t0 = std::int64_t{blockIdx.y} * kTile;
  const std::int64_t o0 = std::int64_t{blockIdx.x} * kTile;
  const int row = static_cast<int>(threadIdx.x) / (kTile / kThread) * kThread;
  const int column = static_cast<int>(threadIdx.x) % (kTile / kThread) * kThread;
  float sums[kThread][kThread] = {};
  for (std::int64_t u = 0; u < args.w.units; ++u) {
    for (int at = static_cast<int>(threadIdx.x); at < kTile * kUnit; at += kTiledThreads) {
      const int r = at / kUnit, k = at % kUnit;
      xs[k][r] = t0 + r < args.tokens
                     ? load_float(args.x, args.x_type, (t0 + r) * args.x_row + u * kUnit + k)
                     : 0.0f;
    }
    for (int at = static_cast<int>(threadIdx.x); at < kTile * 8; at += kTiledThreads) {
      const int r = at / 8, j = at % 8;
      float w[4] = {};
      if (o0 + r < args.outputs)
        load_weights<type>(args.w.data + (o0 + r) * args.w.row.bytes, args.w.row, u, j, w);
#pragma unroll
      for (int b = 0; b < 4; ++b) ws[4 * j + b][r] = w[b];
    }
    __syncthreads();
#pragma unroll
    for (int k = 0; k < kUnit; ++k) {
      const float4 x = *reinterpret_cast<const float4*>(&xs[k][row]);
      const float4 w = *reinterpret_cast<const float4*>(&ws[k][column]);
      const float x_of[kThread] = {x.x, x.y, x.z, x.w}, w_of[kThread] = {w.x, w.y, w.z, w.w};
#pragma unroll
      for (int a = 0; a < kThread; ++a) {
#pragma unroll
        for (int b = 0; b < kThread; ++b) sums[a][b] = fmaf(x_of[a], w_of[b], sums[a][b]);
      }
    }
    __syncthreads();
  }
#pragma unroll
  for (int a = 0; a < kThread; ++a) {
#pragma unroll
    for (int b = 0; b < kThread; ++b) {
      const std::int64_t t = t0 + row + a, o = o0 + column + b;
      if (t >= args.tokens || o >= args.outputs) continue;
      store_float(args.y, args.y_type, t * args.y_row + o,
                  sums[a][b] + (args.bias ? args.bias[o] : 0.0f));
    }
  }
}

Status run_tiled(const Call& call, const Launch& launch) {
  const Args args = args_of(call);
  if (call.outputs[0].elements() == 0) return {};
  const dim3 grid(blocks_of(args.outputs, kTile), blocks_of(args.tokens, kTile));
  with_block_type(call.inputs[1].dtype, [&](auto type) {
    tiled_blocks<type.value><<<grid, kTiledThreads, 0, stream_of(launch)>>>(args);
  });
  return launched(call);
}

}  // namespace

extern const Kernel linear_gemv_blocks_kernel{.op = "linear",
                                              .name = "gemv_blocks",
                                              .supports = supports_gemv,
                                              .run = run_gemv,
                                              .layout = weight_layout};
extern const Kernel linear_tiled_blocks_kernel{.op = "linear",
                                               .name = "tiled_blocks",
                                               .supports = supports_blocks,
                                               .run = run_tiled,
                                               .layout = weight_layout};

}  // namespace krait::cuda
