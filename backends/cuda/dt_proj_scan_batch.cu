// dt_proj_scan for decoding in batches, bound by reading and writing the states. A block fetches
// the states of its channels and sequences into shared memory before its inputs are there: then the
// memory has something to do while the small kernels before this one run. Once they have ended,
// tensor cores make dt, and four lanes each advance a channel, four sequences at a time.
#include <algorithm>

#include "backends/cuda/early_launch.cuh"
#include "backends/cuda/scan_step.cuh"
#include "backends/cuda/shared_memory.cuh"
#include "backends/cuda/tensor_cores.cuh"
#include "runtime/core/try.h"

namespace krait::cuda {
namespace {

using X = __nv_bfloat16;  ///< of float32, three terms, separate kernels are faster

constexpr int kWarps = 2;
constexpr int kWarpChannels = 8;                   ///< columns of an mma
constexpr int kChannels = kWarps * kWarpChannels;  ///< of a block
static_assert(kChannels == kBatchChannels);
constexpr int kMostTokens = 128, kMostTokensLate = 8;  ///< see supports()
constexpr int kFewSequences = 4;                       ///< for which registers are no concern
constexpr int kSequences = 16;                         ///< of a block: rows of an mma
constexpr int kStates = 4 * kStepLanes;                ///< of a channel
constexpr int kCopySequences = 2;                      ///< whose states are copied together
constexpr int kCopies = kSequences / kCopySequences;
constexpr int kFewestAtOnce = 2;  ///< copies on the way
/// Of states, on the way for a multiprocessor: what the memory gives in the time that it takes to
/// answer. With more, what other kernels load waits behind them.
constexpr int kBytesAtOnce = 20 << 10;

struct DtProj {
  const X* low;
  std::int64_t low_row;
  const __nv_bfloat16* w;
  int rank;
  bool low_aligned, w_aligned, u_aligned, z_aligned;  ///< rows, to sixteen bytes
};

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800

/// Lane k's sum over four neighbours of their element k; in the same order for each k.
__device__ inline float sum_of_lane(const float (&x)[kStepLanes]) {
  const bool upper = threadIdx.x & 2, odd = threadIdx.x & 1;
  const auto swap = [](float keep, float give, int lanes) {
    return keep + __shfl_xor_sync(0xffffffffu, give, lanes);
  };
  const float a = swap(upper ? x[2] : x[0], upper ? x[0] : x[2], 2);
  const float b = swap(upper ? x[3] : x[1], upper ? x[1] : x[3], 2);
  return swap(odd ? b : a, odd ? a : b, 1);
}

/// Copies elements i to i+7 of a row of `width`, on their way until await_copies(); beyond the
/// row's end, the last one.
__device__ inline void copy_eight(X* to, const X* row, int i, int width, bool aligned) {
  if (aligned && i + 8 <= width) return copy_pack(shared_address(to), row + i);
#pragma unroll
  for (int k = 0; k < 8; ++k) to[k] = row[min(i + k, width - 1)];
}

#endif

/// A warp loads the weights of `held_steps` steps before the inputs are there, and after that the
/// inputs of as many together. For more steps that takes more turns; but with more registers fewer
/// blocks find room beside the kernels before, and have their states on the way.
template <Discretisation rule, int held_steps>
__global__ void __launch_bounds__(32 * kWarps, held_steps > 3 ? 6 : 12)
    batch(ScanArgs<X> args, DtProj dt, int at_once, FetchAhead fetch) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  constexpr int kStepInputs = 32;  // of two mma
  __shared__ alignas(16) float4 states[kSequences][kChannels][kStepLanes];
  __shared__ float steps[kSequences][kChannels];  // dt
  __shared__ alignas(16) X us[kSequences][kChannels], zs[kSequences][kChannels];
  __shared__ alignas(16) float4 BC[kSequences][2 * kStepLanes];
  __shared__ int slots_out[kSequences];
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int channels = static_cast<int>(args.channels);
  const int d0 = static_cast<int>(blockIdx.x) * kChannels, here = min(kChannels, channels - d0);
  const int c0 = warp * kWarpChannels;  // the warp's channels of the block's
  const int s0 = static_cast<int>(blockIdx.y) * kSequences;
  const int count = min(kSequences, args.sequences.count - s0);
  const auto state_of = [&](int slot, int d) {
    return reinterpret_cast<float4*>(args.state) + (std::int64_t{slot} * channels + d) * kStepLanes;
  };
  const auto token = [&](int s) { return std::int64_t{s0 + min(s, count - 1)}; };
  const int from = lane < count ? args.sequences.slot_in[s0 + lane] : -1;
  if (warp == 0 && lane < kSequences) {
    slots_out[lane] = lane < count ? args.sequences.slot_out[s0 + lane] : -1;
    if (lane < count && from < 0) {
      for (int i = 0; i < kChannels * kStepLanes; ++i) (&states[lane][0][0])[i] = float4{};
    }
  }

  // A warp makes dt of its channels, columns of an mma. Rows beyond the last are the last one.
  const int row = lane / 4, column = lane % 4 * 8;
  const __nv_bfloat16* const w = dt.w + std::int64_t{min(d0 + c0 + row, channels - 1)} * dt.rank;
  uint4 held[held_steps];
#pragma unroll
  for (int k = 0; k < held_steps; ++k)
    held[k] = load_eight(w, k * kStepInputs + column, dt.rank, dt.w_aligned);
  float bias[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int d = d0 + c0 + lane % 4 * 2 + i;
    bias[i] = args.dt_bias && d < channels ? args.dt_bias[d] : 0.0f;
  }
  // In the scan a lane has a quarter of a channel's states.
  const int quarter = lane % kStepLanes, c = c0 + lane / kStepLanes;
  const bool active = c < here;
  const std::int64_t channel = active ? d0 + c : 0;
  const float4 A = load_quad(args.A + channel * args.A_row + 4 * quarter);
  const float skip = args.skip ? args.skip[channel] : 0.0f;

#if __CUDA_ARCH__ >= 900
  __shared__ std::uint64_t arrived[kCopies];
  const unsigned barriers = shared_address(arrived);
  const auto await_states = [&](int copy) { barrier_wait(barriers + 8 * copy, 0); };
  if (warp == 0) {
    if (lane == 0) {
#pragma unroll
      for (int i = 0; i < kCopies; ++i) barrier_init(barriers + 8 * i, kCopySequences);
      show_barriers();
    }
    __syncwarp();
    const bool absent = lane >= count && lane < kSequences;
    if (absent) barrier_arrive(barriers + 8 * (lane / kCopySequences));
#pragma unroll 1
    for (int i = 0; i * kCopySequences < count; ++i) {
      if (i >= at_once) await_states(i - at_once);
      if (lane / kCopySequences != i || absent) continue;
      if (from < 0) {
        barrier_arrive(barriers + 8 * i);
      } else {
        const int bytes = here * kStates * 4;
        barrier_expect(barriers + 8 * i, bytes);
        copy_bytes(shared_address(states[lane]), state_of(from, d0), bytes, barriers + 8 * i);
      }
    }
  }
#else
  const auto await_states = [](int) {};  // with the other copies
  for (int i = static_cast<int>(threadIdx.x); i < kSequences * kChannels * kStepLanes;
       i += 32 * kWarps) {
    const int s = i / (kChannels * kStepLanes), at = i % (kChannels * kStepLanes);
    const int slot = s < count ? args.sequences.slot_in[s0 + s] : -1;
    if (slot >= 0 && at < here * kStepLanes)
      copy_pack(shared_address(&states[s][0][at]), state_of(slot, d0) + at);
  }
#endif

  wait_for_inputs();
  {  // of its channels a warp copies u and z of all sequences
    const int s = lane % kSequences;
    if (lane < kSequences)
      copy_eight(&us[s][c0], args.u + token(s) * args.u_row, d0 + c0, channels, dt.u_aligned);
    else if (args.z)
      copy_eight(&zs[s][c0], args.z + token(s) * args.z_row, d0 + c0, channels, dt.z_aligned);
    commit_copies();
  }
  // One warp B, the other C.
  const std::int64_t group = d0 / args.channels_per_group;
  const X* const BC_from =
      warp == 0 ? args.B + group * args.B_group : args.C + group * args.C_group;
  const std::int64_t BC_row = warp == 0 ? args.B_row : args.C_row;
  uint2 bc[2];
#pragma unroll
  for (int i = 0; i < 2; ++i)
    bc[i] = *reinterpret_cast<const uint2*>(BC_from + token(8 * i + row) * BC_row + 4 * quarter);
  const X* low[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) low[i] = dt.low + token(8 * i + row) * dt.low_row;
  // dt[s,d] = Σ_r dt_low[s,r] dt_w[d,r]
  float sum[4] = {};
#pragma unroll 1
  for (int first = 0; first * kStepInputs < dt.rank; first += held_steps) {
    uint4 x[held_steps][2];
#pragma unroll
    for (int k = 0; k < held_steps; ++k) {
      const int at = (first + k) * kStepInputs + column;
#pragma unroll
      for (int i = 0; i < 2; ++i) x[k][i] = load_eight(low[i], at, dt.rank, dt.low_aligned);
      if (first > 0) held[k] = load_eight(w, at, dt.rank, dt.w_aligned);
    }
#pragma unroll
    for (int k = 0; k < held_steps; ++k) {
      const uint4 &l = x[k][0], &h = x[k][1], &b = held[k];
      multiply_add(sum, l.x, h.x, l.y, h.y, b.x, b.y);
      multiply_add(sum, l.z, h.z, l.w, h.w, b.z, b.w);
    }
  }
#pragma unroll
  for (int i = 0; i < 2; ++i)
    BC[8 * i + row][warp * kStepLanes + quarter] = load_quad(reinterpret_cast<const X*>(&bc[i]));
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float step = sum[i] + bias[i % 2];
    steps[i / 2 * 8 + row][c0 + lane % 4 * 2 + i % 2] = args.dt_softplus ? softplus(step) : step;
  }
  await_copies<0>();
  __syncthreads();

#pragma unroll 1
  for (int s = 0; s < count; s += kStepSequences) {
#pragma unroll
    for (int i = 0; i < kStepSequences; i += kCopySequences) await_states((s + i) / kCopySequences);
    float y[kStepSequences];
#pragma unroll
    for (int i = 0; i < kStepSequences; ++i) {
      const int at = s + i;
      float4 h = states[at][c][quarter];
      const float step = steps[at][c], input = step * to_float(us[at][c]);
      const float4 B = BC[at][quarter], C = BC[at][kStepLanes + quarter];
      h = {advance<rule>(h.x, step * A.x, B.x, input), advance<rule>(h.y, step * A.y, B.y, input),
           advance<rule>(h.z, step * A.z, B.z, input), advance<rule>(h.w, step * A.w, B.w, input)};
      y[i] = fmaf(C.w, h.w, fmaf(C.z, h.z, fmaf(C.y, h.y, C.x * h.x)));
      const int to = slots_out[at];
      if (active && to >= 0) state_of(to, d0 + c)[quarter] = h;
    }
    // The lane that adds up a sequence's y also ends it.
    const int at = s + quarter;
    float mine = sum_of_lane(y);
    if (args.skip) mine = fmaf(skip, to_float(us[at][c]), mine);
    if (args.z) mine *= silu(to_float(zs[at][c]));
    if (active && at < count) args.y[(s0 + at) * args.y_row + channel] = from_float<X>(mine);
  }
  if (blockIdx.y == 0) fetch.run();
#endif
}

std::string supports(const Call& call, const Device& device) {
  const auto [u, dt_low, dt_w, A, B, C, skip, z, dt_bias, state] = call.in<10>();
  if (!call.steps) return "for one token of every sequence";
  const auto& cuda = static_cast<const CudaDevice&>(device);
  if (cuda.compute_capability() < 80) return "needs compute capability 8.0";
  if (u.dtype != DType::bf16) return cat("u: expected bf16, got ", name(u.dtype));
  for (const auto& [name, view] :
       {std::pair{"dt_low", &dt_low}, std::pair{"B", &B}, std::pair{"C", &C}, std::pair{"z", &z}}) {
    if (*view && view->dtype != u.dtype) {
      return cat(name, ": expected ", krait::name(u.dtype), " as u, got ",
                 krait::name(view->dtype));
    }
  }
  if (dt_w.dtype != DType::bf16) return cat("dt_w: expected bf16, got ", name(dt_w.dtype));
  if (!step_fits(A, B, C, state)) return cat("for ", kStates, " states, in rows of aligned fours");
  if (!batch_fits(u, B))
    return cat("for one group, or groups of a multiple of ", kChannels, " channels");
  // For more, x_proj is a kernel that does not let this one start early. Where none starts early,
  // separate kernels have more threads to wait for the states.
  const int most = cuda.early_launch() ? kMostTokens : kMostTokensLate;
  if (u.dim[0] > most) return cat("for at most ", most, " tokens, got ", u.dim[0]);
  if (u.dim[1] > 1 << 30 || dt_w.dim[1] > 1 << 30) return "too many channels or inputs";
  return {};
}

Status run(const Call& call, const Launch& launch) {
  const auto [u, dt_low, dt_w, A, B, C, skip, z, dt_bias, state, starts, slot_in, slot_out] =
      call.in<13>();
  if (u.elements() == 0) return {};
  ScanArgs<X> args = scan_args<X>({u, A, B, C, skip, z, dt_bias, call.outputs[0], state});
  args.dt_softplus = call.flag("dt_softplus");
  args.sequences = {starts.as<const std::int32_t>(), slot_in.as<const std::int32_t>(),
                    slot_out.as<const std::int32_t>(), static_cast<int>(slot_in.dim[0])};
  const DtProj dt{dt_low.as<const X>(),
                  dt_low.stride[0],
                  dt_w.as<const __nv_bfloat16>(),
                  static_cast<int>(dt_w.dim[1]),
                  rows_aligned(dt_low),
                  rows_aligned(dt_w),
                  rows_aligned(u),
                  z && rows_aligned(z)};
  const dim3 grid(blocks_of(args.channels, kChannels), blocks_of(args.sequences.count, kSequences));
  const auto& device = static_cast<const CudaDevice&>(launch.device);
  const std::int64_t copies_bytes = std::int64_t{grid.x} * grid.y * kCopySequences * kChannels *
                                    kStates * 4;  // one of each block
  const auto at_once = static_cast<int>(
      std::clamp<std::int64_t>(std::int64_t{kBytesAtOnce} * device.multiprocessors() / copies_bytes,
                               kFewestAtOnce, kCopies));
  const bool few = args.sequences.count <= kFewSequences;
  with_rule(call.choice<Discretisation>("discretisation"), [&](auto rule) {
    launch_early(launch, few ? batch<rule.value, 5> : batch<rule.value, 3>, grid, 32 * kWarps, 0,
                 args, dt, at_once, FetchAhead(launch));
  });
  return launched(call);
}

}  // namespace

extern const Kernel dt_proj_scan_batch_kernel{"dt_proj_scan", "batch", supports, run,
                                              nullptr,        nullptr, true};

}  // namespace krait::cuda
