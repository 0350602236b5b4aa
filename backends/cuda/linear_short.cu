// linear for many outputs of few inputs, such as dt_proj of a batch: a block makes 16 outputs of up
// to 64 tokens. Its weights are in registers before the inputs are there; then a warp loads sixteen
// tokens' inputs at once and multiplies. Products are those of bfloat16 on tensor cores, and exact:
// a float32 is the sum of three bfloat16 terms.
#include <algorithm>

#include "backends/cuda/early_launch.cuh"
#include "backends/cuda/linear_args.cuh"

namespace krait::cuda {
namespace {

constexpr int kTokens = 16;      ///< of a warp: rows of an mma
constexpr int kMostTokens = 64;  ///< of a block
constexpr int kOutputTiles = 2;  ///< of a warp, of eight outputs: columns
constexpr int kOutputs = 8 * kOutputTiles;
constexpr int kStepInputs = 32;  ///< of two mma
constexpr int kMostSteps = 5;    ///< whose weights a warp can hold
constexpr int kMostInputs = kStepInputs * kMostSteps;

template <int steps, class X>
__global__ void __launch_bounds__(32 * kMostTokens / kTokens) few_inputs(LinearArgs<X> args) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int o0 = static_cast<int>(blockIdx.x) * kOutputs;
  const int t0 = static_cast<int>(blockIdx.y) * kMostTokens + warp * kTokens;
  // Rows beyond the last are the last one.
  const int row = lane / 4, column = lane % 4 * 8;
  uint4 b[kOutputTiles][steps];
#pragma unroll
  for (int n = 0; n < kOutputTiles; ++n) {
    const __nv_bfloat16* const w =
        args.w + std::int64_t{min(o0 + 8 * n + row, args.outputs - 1)} * args.inputs;
#pragma unroll
    for (int s = 0; s < steps; ++s)
      b[n][s] = load_eight(w, s * kStepInputs + column, args.inputs, args.w_aligned);
  }
  wait_for_inputs();
  if (t0 >= args.tokens) return;
  const X* x[2];
#pragma unroll
  for (int half = 0; half < 2; ++half)
    x[half] = args.x + std::int64_t{min(t0 + 8 * half + row, args.tokens - 1)} * args.x_row;
  float sum[kOutputTiles][4] = {};
#pragma unroll
  for (int s = 0; s < steps; ++s) {
    uint4 a[2][kTerms<X>];
#pragma unroll
    for (int half = 0; half < 2; ++half)
      load_terms(x[half], s * kStepInputs + column, args.inputs, args.x_aligned, a[half]);
#pragma unroll
    for (int k = kTerms<X> - 1; k >= 0; --k) {
      const uint4 &low = a[0][k], &high = a[1][k];
#pragma unroll
      for (int n = 0; n < kOutputTiles; ++n)
        multiply_add(sum[n], low.x, high.x, low.y, high.y, b[n][s].x, b[n][s].y);
#pragma unroll
      for (int n = 0; n < kOutputTiles; ++n)
        multiply_add(sum[n], low.z, high.z, low.w, high.w, b[n][s].z, b[n][s].w);
    }
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int t = t0 + 8 * half + row;
    if (t >= args.tokens) break;
#pragma unroll
    for (int n = 0; n < kOutputTiles; ++n) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int o = o0 + 8 * n + lane % 4 * 2 + i;
        if (o >= args.outputs) continue;
        store_float(args.y, args.type, t * args.y_row + o,
                    sum[n][2 * half + i] + (args.bias ? args.bias[o] : 0.0f));
      }
    }
  }
#endif
}

// For more tokens there is enough work for cuBLASLt.
constexpr std::int64_t kMostRows = 256, kLeastOutputs = 256;

std::string supports(const Call& call, const Device& device) {
  const auto [x, w, bias] = call.in<3>();
  if (static_cast<const CudaDevice&>(device).compute_capability() < 80)
    return "needs compute capability 8.0";
  if (x.dim[0] > kMostRows || w.dim[0] < kLeastOutputs || w.dim[1] > kMostInputs) {
    return cat("for at most ", kMostRows, " tokens, at least ", kLeastOutputs,
               " outputs and at most ", kMostInputs, " inputs, got ", x.dim[0], ", ", w.dim[0],
               " and ", w.dim[1]);
  }
  return linear_args_refusal(call);
}

template <class X>
void launch_few(const Launch& launch, const LinearArgs<X>& args) {
  const auto kernel = args.inputs <= 2 * kStepInputs ? few_inputs<2, X> : few_inputs<kMostSteps, X>;
  const unsigned warps = std::min(blocks_of(args.tokens, kTokens), unsigned{kMostTokens / kTokens});
  launch_early(launch, kernel,
               dim3(blocks_of(args.outputs, kOutputs), blocks_of(args.tokens, kMostTokens)),
               32 * warps, 0, args);
}

Status run(const Call& call, const Launch& launch) {
  if (call.outputs[0].elements() == 0) return {};
  with_linear_args(call, [&](const auto& args) { launch_few(launch, args); });
  return launched(call);
}

}  // namespace

extern const Kernel linear_short_kernel{"linear", "short", supports, run};

}  // namespace krait::cuda
