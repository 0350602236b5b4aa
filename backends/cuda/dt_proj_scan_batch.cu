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

constexpr int kWarps = 2;
constexpr int kWarpChannels = 8;                   ///< columns of an mma
constexpr int kChannels = kWarps * kWarpChannels;  ///< of a block
static_assert(kChannels == kBatchChannels);
constexpr int kMostTokens = 128, kMostTokensLate = 8;  ///< see supports()
constexpr int kSequences = 16;                         ///< of a block: rows of an mma
constexpr int kStates = 4 * kStepLanes;                ///< of a channel
constexpr int kCopySequences = 2;                      ///< whose states are copied together
constexpr int kCopies = kSequences / kCopySequences;
constexpr int kFewestAtOnce = 2;  ///< copies on the way
/// Of states, on the way for a multiprocessor: what the memory gives in the time that it takes to
/// answer. With more, what other kernels load waits behind them.
constexpr int kBytesAtOnce = 20 << 10;

/// Sequences for which registers are no concern, and steps of dt_proj whose weights a warp loads
/// before the inputs are there: of so few, and of more.
template <class X>
constexpr int kFewSequences = kTerms<X> == 1 ? 4 : kSequences;
constexpr int kFewHeld = 5;
template <class X>
constexpr int kHeld = kTerms<X> == 1 ? 3 : 2;

template <class X>
struct DtProj {
  const X* low;
  std::int64_t low_row;
  const __nv_bfloat16* w;
  int rank;
};

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800

/// Four neighbours, as they come from memory.
template <class X>
struct alignas(4 * sizeof(X)) Four {
  X x[4];
};

/// Copies elements i to i+7 of a row of `width`, on their way until await_copies(); beyond the
/// row's end, the last ones.
template <bool neat, class X>
__device__ inline void copy_eight(X* to, const X* row, int i, int width) {
  if constexpr (neat) {
    const X* const from = row + min(i, width - 8);
    copy_pack(shared_address(to), from);
    if constexpr (sizeof(X) == 4) copy_pack(shared_address(to + 4), from + 4);
  } else {
#pragma unroll
    for (int k = 0; k < 8; ++k) to[k] = row[min(i + k, width - 1)];
  }
}

#endif

/// A warp loads the weights of `held_steps` steps before the inputs are there, and after that the
/// inputs of as many together. For more steps that takes more turns; but with more registers fewer
/// blocks find room beside the kernels before, and have their states on the way. `neat`: rows of
/// dt_low, dt_w, u and z are whole packs (tensor_cores.cuh).
template <Discretisation rule, int held_steps, bool neat, class X>
__global__ void __launch_bounds__(32 * kWarps, held_steps == kFewHeld ? 6
                                               : kTerms<X> > 1        ? 10
                                                                      : 12)
    batch(ScanArgs<X> args, DtProj<X> dt, int at_once, FetchAhead fetch) {
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
  Eight<__nv_bfloat16> held[held_steps];
#pragma unroll
  for (int k = 0; k < held_steps; ++k)
    held[k] = load_eight<neat>(w, k * kStepInputs + column, dt.rank);
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
  // One warp loads B, the other C.
  const int group = d0 / static_cast<int>(args.channels_per_group);
  const X* const BC_from =
      warp == 0 ? args.B + group * args.B_group : args.C + group * args.C_group;
  const std::int64_t BC_row = warp == 0 ? args.B_row : args.C_row;

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
      copy_eight<neat>(&us[s][c0], args.u + token(s) * args.u_row, d0 + c0, channels);
    else if (args.z)
      copy_eight<neat>(&zs[s][c0], args.z + token(s) * args.z_row, d0 + c0, channels);
    commit_copies();
  }
  Four<X> bc[2];
#pragma unroll
  for (int i = 0; i < 2; ++i)
    bc[i] = *reinterpret_cast<const Four<X>*>(BC_from + token(8 * i + row) * BC_row + 4 * quarter);
  const X* low[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) low[i] = dt.low + token(8 * i + row) * dt.low_row;
  // dt[s,d] = Σ_r dt_low[s,r] dt_w[d,r]
  float sum[4] = {};
#pragma unroll 1
  for (int first = 0; first * kStepInputs < dt.rank; first += held_steps) {
    Eight<X> x[held_steps][2];
#pragma unroll
    for (int k = 0; k < held_steps; ++k) {
      const int at = (first + k) * kStepInputs + column;
#pragma unroll
      for (int i = 0; i < 2; ++i) x[k][i] = load_eight<neat>(low[i], at, dt.rank);
      if (first > 0) held[k] = load_eight<neat>(w, at, dt.rank);
    }
#pragma unroll
    for (int k = 0; k < held_steps; ++k) {
      const uint4& b = held[k].words;
      uint4 a[2][kTerms<X>];
#pragma unroll
      for (int i = 0; i < 2; ++i) take_terms(x[k][i], a[i]);
#pragma unroll
      for (int j = kTerms<X> - 1; j >= 0; --j) {
        const uint4 &l = a[0][j], &h = a[1][j];
        multiply_add(sum, l.x, h.x, l.y, h.y, b.x, b.y);
        multiply_add(sum, l.z, h.z, l.w, h.w, b.z, b.w);
      }
    }
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) BC[8 * i + row][warp * kStepLanes + quarter] = load_quad(bc[i].x);
#pragma unroll
  for (int i = 0; i < 4; ++i) sum[i] += bias[i % 2];
  if (args.dt_softplus) {
#pragma unroll
    for (float& step : sum) step = softplus(step);
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) steps[i / 2 * 8 + row][c0 + lane % 4 * 2 + i % 2] = sum[i];
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
  if (u.dtype != DType::bf16 && u.dtype != DType::f32)
    return cat("u: expected f32 or bf16, got ", name(u.dtype));
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

template <class X>
void run_as(const Call& call, const Launch& launch) {
  const auto [u, dt_low, dt_w, A, B, C, skip, z, dt_bias, state, starts, slot_in, slot_out] =
      call.in<13>();
  ScanArgs<X> args = scan_args<X>({u, A, B, C, skip, z, dt_bias, call.outputs[0], state});
  args.dt_softplus = call.flag("dt_softplus");
  args.sequences = {starts.as<const std::int32_t>(), slot_in.as<const std::int32_t>(),
                    slot_out.as<const std::int32_t>(), static_cast<int>(slot_in.dim[0])};
  const DtProj<X> dt{dt_low.as<const X>(), dt_low.stride[0], dt_w.as<const __nv_bfloat16>(),
                     static_cast<int>(dt_w.dim[1])};
  const bool neat = dt.rank % 8 == 0 && u.dim[1] % 8 == 0 && rows_aligned(dt_low) &&
                    rows_aligned(dt_w) && rows_aligned(u) && (!z || rows_aligned(z));
  const dim3 grid(blocks_of(args.channels, kChannels), blocks_of(args.sequences.count, kSequences));
  const auto& device = static_cast<const CudaDevice&>(launch.device);
  const std::int64_t copies_bytes = std::int64_t{grid.x} * grid.y * kCopySequences * kChannels *
                                    kStates * 4;  // one of each block
  const auto at_once = static_cast<int>(
      std::clamp<std::int64_t>(std::int64_t{kBytesAtOnce} * device.multiprocessors() / copies_bytes,
                               kFewestAtOnce, kCopies));
  const bool few = args.sequences.count <= kFewSequences<X>;
  with_rule(call.choice<Discretisation>("discretisation"), [&](auto rule) {
    const auto kernel =
        neat  ? few ? batch<rule.value, kFewHeld, true, X> : batch<rule.value, kHeld<X>, true, X>
         : few ? batch<rule.value, kFewHeld, false, X>
              : batch<rule.value, kHeld<X>, false, X>;
    launch_early(launch, kernel, grid, 32 * kWarps, 0, args, dt, at_once, FetchAhead(launch));
  });
}

Status run(const Call& call, const Launch& launch) {
  if (call.inputs[0].elements() == 0) return {};
  with_term_type(call.inputs[0].dtype, [&](auto type) { run_as<decltype(type)>(call, launch); });
  return launched(call);
}

}  // namespace

extern const Kernel dt_proj_scan_batch_kernel{"dt_proj_scan", "batch", supports, run,
                                              nullptr,        nullptr, true};

}  // namespace krait::cuda
