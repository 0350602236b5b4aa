// selective_scan: sequential in time, parallel over sequences, channels and states. A channel's
// states are split over a few lanes and stay in their registers; y is added up over those lanes.
// Decoding is bound by reading and writing the states.
#include "backends/cuda/early_launch.cuh"
#include "backends/cuda/scan_step.cuh"
#include "runtime/core/try.h"

namespace krait::cuda {
namespace {

constexpr int kThreads = 128;

template <Discretisation rule, int lanes, int per_lane, class X>
__global__ void __launch_bounds__(kThreads) scan(ScanArgs<X> args) {
  const int lane = static_cast<int>(threadIdx.x) % lanes;
  const std::int64_t d = std::int64_t{blockIdx.x} * (kThreads / lanes) + threadIdx.x / lanes;
  // Lanes beyond the last channel take part in the sums of their warp, but touch no memory.
  const bool active = d < args.channels;
  const std::int64_t channel = active ? d : 0;
  const int s = static_cast<int>(blockIdx.y);
  const std::int64_t group = channel / args.channels_per_group;
  const int first = lane * per_lane;  // of the states of this lane
  const int from = args.sequences.slot_in[s], to = args.sequences.slot_out[s];

  float A[per_lane], h[per_lane];
#pragma unroll
  for (int i = 0; i < per_lane; ++i) {
    const bool exists = active && first + i < args.states;
    A[i] = exists ? args.A[channel * args.A_row + first + i] : 0.0f;
    h[i] = exists && from >= 0
               ? args.state[(from * args.channels + channel) * args.states + first + i]
               : 0.0f;
  }
  const float bias = args.dt_bias ? args.dt_bias[channel] : 0.0f;
  const float skip = args.skip ? args.skip[channel] : 0.0f;
  const std::int64_t end = args.sequences.starts[s + 1];
  for (std::int64_t t = args.sequences.starts[s]; t < end; ++t) {
    float dt = args.dt[t * args.dt_row + channel] + bias;
    if (args.dt_softplus) dt = softplus(dt);
    const float u = to_float(args.u[t * args.u_row + channel]);
    const X* B = args.B + t * args.B_row + group * args.B_group + first;
    const X* C = args.C + t * args.C_row + group * args.C_group + first;
    float y = 0;
#pragma unroll
    for (int i = 0; i < per_lane; ++i) {
      if (first + i >= args.states) break;
      h[i] = advance<rule>(h[i], dt * A[i], to_float(B[i]), dt * u);
      y = fmaf(to_float(C[i]), h[i], y);
    }
    y = lanes_sum<lanes>(y);
    if (active && lane == 0) {
      if (args.skip) y = fmaf(skip, u, y);
      if (args.z) y *= silu(to_float(args.z[t * args.z_row + channel]));
      args.y[t * args.y_row + channel] = from_float<X>(y);
    }
  }
  if (to < 0 || !active) return;
#pragma unroll
  for (int i = 0; i < per_lane; ++i) {
    if (first + i < args.states)
      args.state[(to * args.channels + channel) * args.states + first + i] = h[i];
  }
}

/// Decoding with sixteen states (scan_step.cuh).
template <Discretisation rule, class X>
__global__ void __launch_bounds__(kThreads) step(ScanArgs<X> args) {
  const int d = static_cast<int>(blockIdx.x * (kThreads / kStepLanes) + threadIdx.x / kStepLanes);
  const int first = static_cast<int>(blockIdx.y) * kStepSequences;
  StepLane<X> lane(args, d, first);
  wait_for_inputs();
  lane.template run<rule>();
}

constexpr int kMostStates = 1024;

std::string supports(const Call& call, const Device&) {
  const auto [u, dt, A, B, C, skip, z, dt_bias, state, starts, slot_in, slot_out] = call.in<12>();
  std::string reason = want_float("u", u);
  for (const auto& [name, view] : {std::pair{"B", &B}, std::pair{"C", &C}, std::pair{"z", &z}}) {
    if (reason.empty() && *view && view->dtype != u.dtype) {
      reason =
          cat(name, ": expected ", krait::name(u.dtype), " as u, got ", krait::name(view->dtype));
    }
  }
  if (reason.empty() && dt.dtype != DType::f32) reason = "dt: expected f32";
  if (reason.empty() && A.dim[1] > kMostStates)
    reason = cat("at most ", kMostStates, " states, got ", A.dim[1]);
  if (reason.empty() && slot_in.dim[0] > 65535)
    reason = cat("at most 65535 sequences, got ", slot_in.dim[0]);
  return reason;
}

template <Discretisation rule, class X>
void launch_step(const Launch& launch, const ScanArgs<X>& args) {
  launch_early(launch, step<rule, X>,
               dim3(blocks_of(args.channels, kThreads / kStepLanes),
                    blocks_of(args.sequences.count, kStepSequences)),
               kThreads, 0, args);
}

template <Discretisation rule, int lanes, int per_lane, class X>
void launch_scan(const ScanArgs<X>& args, cudaStream_t stream) {
  const dim3 grid(blocks_of(args.channels, kThreads / lanes),
                  static_cast<unsigned>(args.sequences.count));
  scan<rule, lanes, per_lane><<<grid, kThreads, 0, stream>>>(args);
}

/// Lanes per channel and states per lane that hold N states. `steps`: step() fits.
template <Discretisation rule, class X>
void launch_for_states(const Launch& launch, const ScanArgs<X>& args, bool steps) {
  const cudaStream_t stream = stream_of(launch);
  if (steps) return launch_step<rule>(launch, args);
  if (args.states <= 4) return launch_scan<rule, 1, 4>(args, stream);
  if (args.states <= 16) return launch_scan<rule, 4, 4>(args, stream);
  if (args.states <= 64) return launch_scan<rule, 8, 8>(args, stream);
  if (args.states <= 256) return launch_scan<rule, 32, 8>(args, stream);
  return launch_scan<rule, 32, 32>(args, stream);
}

Status run(const Call& call, const Launch& launch) {
  const auto [u, dt, A, B, C, skip, z, dt_bias, state, starts, slot_in, slot_out] = call.in<12>();
  if (slot_in.dim[0] == 0) return {};
  const bool steps = call.steps && step_fits(A, B, C, state);
  with_float_type(u.dtype, [&](auto type) {
    using X = decltype(type);
    ScanArgs<X> args = scan_args<X>({u, A, B, C, skip, z, dt_bias, call.outputs[0], state});
    args.dt = dt.as<const float>();
    args.dt_row = dt.stride[0];
    args.dt_softplus = call.flag("dt_softplus");
    args.sequences = {starts.as<const std::int32_t>(), slot_in.as<const std::int32_t>(),
                      slot_out.as<const std::int32_t>(), static_cast<int>(slot_in.dim[0])};
    with_rule(call.choice<Discretisation>("discretisation"),
              [&](auto rule) { launch_for_states<rule.value>(launch, args, steps); });
  });
  return launched(call);
}

}  // namespace

extern const Kernel selective_scan_kernel{"selective_scan", "sequential", supports, run};

}  // namespace krait::cuda
