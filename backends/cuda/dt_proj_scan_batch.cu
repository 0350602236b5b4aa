// dt_proj_scan for decoding in batches: a block makes dt of its channels and sequences on tensor
// cores, then advances the states as selective_scan does.
#include "backends/cuda/early_launch.cuh"
#include "backends/cuda/scan_step.cuh"
#include "backends/cuda/tensor_cores.cuh"
#include "runtime/core/try.h"

namespace krait::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kChannels = kThreads / kStepLanes;  ///< of a block; eight of each warp's products
constexpr int kSequences = 8;                     ///< of a block

using X = __nv_bfloat16;  ///< of float32, three terms, the other kernel is faster

struct DtProj {
  const X* low;
  std::int64_t low_row;
  const __nv_bfloat16* w;
  int rank;
  bool low_aligned, w_aligned;  ///< rows begin at multiples of sixteen bytes
};

template <Discretisation rule>
__global__ void __launch_bounds__(kThreads) batch(ScanArgs<X> args, DtProj dt) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  constexpr int kStepInputs = 32;  // of two mma
  constexpr int kHeldSteps = 5;    // whose weights a warp loads before the inputs are there
  __shared__ float dts[kSequences][kChannels];
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int d0 = static_cast<int>(blockIdx.x) * kChannels;
  const int first = static_cast<int>(blockIdx.y) * kSequences;
  const StepLane<X> step(args, d0 + static_cast<int>(threadIdx.x) / kStepLanes);
  constexpr int kParts = kSequences / kStepSequences;
  float4 h[kParts][kStepSequences];
#pragma unroll
  for (int p = 0; p < kParts; ++p) step.ask(first + p * kStepSequences, h[p]);
  // Sequences are the rows of an mma, the upper eight of which are zero, channels its columns. Rows
  // beyond the last are the last one.
  const int row = lane / 4, column = lane % 4 * 8, last = static_cast<int>(args.channels) - 1;
  const __nv_bfloat16* const w = dt.w + std::int64_t{min(d0 + 8 * warp + row, last)} * dt.rank;
  uint4 held[kHeldSteps];
#pragma unroll
  for (int s = 0; s < kHeldSteps; ++s)
    held[s] = load_eight(w, s * kStepInputs + column, dt.rank, dt.w_aligned);

  wait_for_inputs();
  const X* const low =
      dt.low + std::int64_t{min(first + row, args.sequences.count - 1)} * dt.low_row;
  float sum[4] = {};
  const auto add = [&](int s, const uint4& b) {
    const uint4 a = load_eight(low, s * kStepInputs + column, dt.rank, dt.low_aligned);
    multiply_add(sum, a.x, 0, a.y, 0, b.x, b.y);
    multiply_add(sum, a.z, 0, a.w, 0, b.z, b.w);
  };
#pragma unroll
  for (int s = 0; s < kHeldSteps; ++s) {
    if (s * kStepInputs < dt.rank) add(s, held[s]);
  }
#pragma unroll 1
  for (int s = kHeldSteps; s * kStepInputs < dt.rank; ++s)
    add(s, load_eight(w, s * kStepInputs + column, dt.rank, dt.w_aligned));
  dts[row][8 * warp + lane % 4 * 2] = sum[0];
  dts[row][8 * warp + lane % 4 * 2 + 1] = sum[1];
  __syncthreads();
#pragma unroll
  for (int p = 0; p < kParts; ++p) {
    const int from = p * kStepSequences;
    if (first + from >= args.sequences.count) break;
    step.template run<rule>(first + from, h[p],
                            [&](int i) { return dts[from + i][threadIdx.x / kStepLanes]; });
  }
#endif
}

std::string supports(const Call& call, const Device& device) {
  const auto [u, dt_low, dt_w, A, B, C, skip, z, dt_bias, state] = call.in<10>();
  if (!call.steps) return "for one token of every sequence";
  if (static_cast<const CudaDevice&>(device).compute_capability() < 80)
    return "needs compute capability 8.0";
  if (u.dtype != DType::bf16) return cat("u: expected bf16, got ", name(u.dtype));
  for (const auto& [name, view] :
       {std::pair{"dt_low", &dt_low}, std::pair{"B", &B}, std::pair{"C", &C}, std::pair{"z", &z}}) {
    if (*view && view->dtype != u.dtype) {
      return cat(name, ": expected ", krait::name(u.dtype), " as u, got ",
                 krait::name(view->dtype));
    }
  }
  if (dt_w.dtype != DType::bf16) return cat("dt_w: expected bf16, got ", name(dt_w.dtype));
  if (!step_fits(A, B, C, state))
    return cat("for ", 4 * kStepLanes, " states, in rows of aligned fours");
  // With more, the product of its own is faster: it leaves the scan more threads.
  if (u.dim[0] > kSequences) return cat("for at most ", kSequences, " tokens, got ", u.dim[0]);
  if (u.dim[1] > 1 << 30 || dt_w.dim[1] > 1 << 30) return "too many channels or inputs";
  return {};
}

Status run(const Call& call, const Launch& launch) {
  const auto [u, dt_low, dt_w, A, B, C, skip, z, dt_bias, state, starts, slot_in, slot_out] =
      call.in<13>();
  if (slot_in.dim[0] == 0 || u.dim[1] == 0) return {};
  ScanArgs<X> args = scan_args<X>({u, A, B, C, skip, z, dt_bias, call.outputs[0], state});
  args.dt_softplus = call.flag("dt_softplus");
  args.sequences = {starts.as<const std::int32_t>(), slot_in.as<const std::int32_t>(),
                    slot_out.as<const std::int32_t>(), static_cast<int>(slot_in.dim[0])};
  const DtProj dt{dt_low.as<const X>(),           dt_low.stride[0],
                  dt_w.as<const __nv_bfloat16>(), static_cast<int>(dt_w.dim[1]),
                  rows_aligned(dt_low),           rows_aligned(dt_w)};
  with_rule(call.choice<Discretisation>("discretisation"), [&](auto rule) {
    launch_early(
        launch, batch<rule.value>,
        dim3(blocks_of(args.channels, kChannels), blocks_of(args.sequences.count, kSequences)),
        kThreads, 0, args, dt);
  });
  return launched(call);
}

}  // namespace

extern const Kernel dt_proj_scan_batch_kernel{"dt_proj_scan", "batch", supports, run};

}  // namespace krait::cuda
