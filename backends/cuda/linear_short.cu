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

template <int steps, bool neat, class X>
__global__ void __launch_bounds__(32 * kMostTokens / kTokens) few_inputs(LinearArgs<X> args) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int o0 = static_cast<int>(blockIdx.x) * kOutputs;
  const int t0 = static_cast<int>(blockIdx.y) * kMostTokens + warp * kTokens;
  // Rows beyond the last are the last one.
  const int row = lane / 4, column = lane % 4 * 8;
  Eight<__nv_bfloat16> b[kOutputTiles][steps];
#pragma unroll
  for (int n = 0; n < kOutputTiles; ++n) {
    const __nv_bfloat16* const w =
        args.w + std::int64_t{min(o0 + 8 * n + row, args.outputs - 1)} * args.inputs;
#pragma unroll
    for (int s = 0; s < steps; ++s)
      b[n][s] = load_eight<neat>(w, s * kStepInputs + column, args.inputs);
  }
  wait_for_inputs();
  if (t0 >= args.tokens) return;
  Eight<X> x[steps][2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const X* const from =
        args.x + std::int64_t{min(t0 + 8 * half + row, args.tokens - 1)} * args.x_row;
#pragma unroll
    for (int s = 0; s < steps; ++s)
      x[s][half] = load_eight<neat>(from, s * kStepInputs + column, args.inputs);
  }
  float sum[kOutputTiles][4] = {};
#pragma unroll
  for (int s = 0; s < steps; ++s) {
    uint4 a[2][kTerms<X>];
#pragma unroll
    for (int half = 0; half < 2; ++half) take_terms(x[s][half], a[half]);
#pragma unroll
    for (int k = kTerms<X> - 1; k >= 0; --k) {
      const uint4 &low = a[0][k], &high = a[1][k];
#pragma unroll
      for (int n = 0; n < kOutputTiles; ++n) {
        const uint4& w = b[n][s].words;
        multiply_add(sum[n], low.x, high.x, low.y, high.y, w.x, w.y);
      }
#pragma unroll
      for (int n = 0; n < kOutputTiles; ++n) {
        const uint4& w = b[n][s].words;
        multiply_add(sum[n], low.z, high.z, low.w, high.w, w.z, w.w);
      }
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
  const bool few = args.inputs <= 2 * kStepInputs;
  const auto kernel = args.neat ? few ? few_inputs<2, true, X> : few_inputs<kMostSteps, true, X>
                      : few ? few_inputs<2, false, X>
                                : few_inputs<kMostSteps, false, X>;
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
