// selective_scan: sequential in time, parallel over sequences, channels and states. A channel's
// states are split over a few lanes and stay in their registers; y is added up over those lanes.
// Decoding is bound by reading and writing the states.
#include "backends/cuda/discretise.cuh"
#include "backends/cuda/early_launch.cuh"
#include "backends/cuda/numeric.cuh"
#include "backends/cuda/sequences.cuh"
#include "runtime/core/try.h"

namespace krait::cuda {
namespace {

constexpr int kThreads = 128;

template <class X>
struct Args {
  const X* u;
  const float* dt;
  const float* A;
  const X* B;
  const X* C;
  const float* skip;
  const X* z;
  const float* dt_bias;
  X* y;
  float* state;  ///< [C, D, N]
  std::int64_t u_row, dt_row, A_row, B_row, B_group, C_row, C_group, z_row, y_row;
  std::int64_t channels, channels_per_group;
  int states;
  bool dt_softplus;
  Sequences sequences;
};

template <Discretisation rule, int lanes, int per_lane, class X>
__global__ void __launch_bounds__(kThreads) scan(Args<X> args) {
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

/// Decoding with the usual number of states. The lanes of a channel advance a few sequences, whose
/// states are on the way together, and before the inputs are there.
constexpr int kSequences = 4;
constexpr int kLanes = 4;  ///< of a channel, each with four states
template <Discretisation rule, class X>
__global__ void __launch_bounds__(kThreads) step(Args<X> args) {
  const int lane = static_cast<int>(threadIdx.x) % kLanes;
  const std::int64_t d = std::int64_t{blockIdx.x} * (kThreads / kLanes) + threadIdx.x / kLanes;
  // Lanes beyond the last channel take part in the sums of their warp, but touch no memory.
  const bool active = d < args.channels;
  const std::int64_t channel = active ? d : 0;
  const int first = static_cast<int>(blockIdx.y) * kSequences;
  const int count = min(kSequences, args.sequences.count - first);
  const auto state_of = [&](int slot) {
    return reinterpret_cast<float4*>(args.state) + (slot * args.channels + channel) * kLanes + lane;
  };
  const float4 A = load_quad(args.A + channel * args.A_row + 4 * lane);
  const float bias = args.dt_bias ? args.dt_bias[channel] : 0.0f;
  const float skip = args.skip ? args.skip[channel] : 0.0f;
  float4 h[kSequences];
#pragma unroll
  for (int i = 0; i < kSequences; ++i) {
    const int from = i < count ? args.sequences.slot_in[first + i] : -1;
    h[i] = from >= 0 ? *state_of(from) : float4{};
  }

  wait_for_inputs();
  const std::int64_t group = channel / args.channels_per_group;
  const X* const B_from = args.B + group * args.B_group + 4 * lane;
  const X* const C_from = args.C + group * args.C_group + 4 * lane;
  float dt[kSequences], u[kSequences], z[kSequences];
  float4 B[kSequences], C[kSequences];
#pragma unroll
  for (int i = 0; i < kSequences; ++i) {
    const std::int64_t t = first + min(i, count - 1);  // sequence s has token s alone
    dt[i] = args.dt[t * args.dt_row + channel];
    u[i] = to_float(args.u[t * args.u_row + channel]);
    z[i] = args.z ? to_float(args.z[t * args.z_row + channel]) : 0.0f;
    B[i] = load_quad(B_from + t * args.B_row);
    C[i] = load_quad(C_from + t * args.C_row);
  }
#pragma unroll
  for (int i = 0; i < kSequences; ++i) {
    if (i >= count) break;
    const int t = first + i, to = args.sequences.slot_out[t];
    float step = dt[i] + bias;
    if (args.dt_softplus) step = softplus(step);
    const float input = step * u[i];
    h[i] = {advance<rule>(h[i].x, step * A.x, B[i].x, input),
            advance<rule>(h[i].y, step * A.y, B[i].y, input),
            advance<rule>(h[i].z, step * A.z, B[i].z, input),
            advance<rule>(h[i].w, step * A.w, B[i].w, input)};
    float y = fmaf(C[i].w, h[i].w, fmaf(C[i].z, h[i].z, fmaf(C[i].y, h[i].y, C[i].x * h[i].x)));
    y = lanes_sum<kLanes>(y);
    if (!active) continue;
    if (lane == 0) {
      if (args.skip) y = fmaf(skip, u[i], y);
      if (args.z) y *= silu(z[i]);
      args.y[t * args.y_row + channel] = from_float<X>(y);
    }
    if (to >= 0) *state_of(to) = h[i];
  }
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

/// Whether step() fits: the states, and four elements of A, B and C at a time.
template <class X>
bool fits_step(const Args<X>& args) {
  const auto aligned = [](const void* at, std::size_t bytes) {
    return reinterpret_cast<std::uintptr_t>(at) % bytes == 0;
  };
  return args.states == 4 * kLanes && args.A_row % 4 == 0 && args.B_row % 4 == 0 &&
         args.B_group % 4 == 0 && args.C_row % 4 == 0 && args.C_group % 4 == 0 &&
         aligned(args.A, 16) && aligned(args.state, 16) && aligned(args.B, 4 * sizeof(X)) &&
         aligned(args.C, 4 * sizeof(X));
}

template <Discretisation rule, class X>
void launch_step(const Launch& launch, const Args<X>& args) {
  launch_early(launch, step<rule, X>,
               dim3(blocks_of(args.channels, kThreads / kLanes),
                    blocks_of(args.sequences.count, kSequences)),
               kThreads, 0, args);
}

template <Discretisation rule, int lanes, int per_lane, class X>
void launch_scan(const Args<X>& args, cudaStream_t stream) {
  const dim3 grid(blocks_of(args.channels, kThreads / lanes),
                  static_cast<unsigned>(args.sequences.count));
  scan<rule, lanes, per_lane><<<grid, kThreads, 0, stream>>>(args);
}

/// Lanes per channel and states per lane that hold N states.
template <Discretisation rule, class X>
void launch_for_states(const Launch& launch, const Args<X>& args, bool steps) {
  const cudaStream_t stream = stream_of(launch);
  if (steps && fits_step(args)) return launch_step<rule>(launch, args);
  if (args.states <= 4) return launch_scan<rule, 1, 4>(args, stream);
  if (args.states <= 16) return launch_scan<rule, 4, 4>(args, stream);
  if (args.states <= 64) return launch_scan<rule, 8, 8>(args, stream);
  if (args.states <= 256) return launch_scan<rule, 32, 8>(args, stream);
  return launch_scan<rule, 32, 32>(args, stream);
}

template <class X>
void launch_for_rule(const Launch& launch, Discretisation rule, const Args<X>& args, bool steps) {
  switch (rule) {
    case Discretisation::mamba:
      return launch_for_states<Discretisation::mamba>(launch, args, steps);
    case Discretisation::zoh:
      return launch_for_states<Discretisation::zoh>(launch, args, steps);
    case Discretisation::euler:
      return launch_for_states<Discretisation::euler>(launch, args, steps);
    case Discretisation::bilinear:
      return launch_for_states<Discretisation::bilinear>(launch, args, steps);
  }
}

Status run(const Call& call, const Launch& launch) {
  const auto [u, dt, A, B, C, skip, z, dt_bias, state, starts, slot_in, slot_out] = call.in<12>();
  if (slot_in.dim[0] == 0) return {};
  with_float_type(u.dtype, [&](auto type) {
    using X = decltype(type);
    Args<X> args{};
    args.u = u.as<const X>();
    args.dt = dt.as<const float>();
    args.A = A.as<const float>();
    args.B = B.as<const X>();
    args.C = C.as<const X>();
    if (skip) args.skip = skip.as<const float>();
    if (z) args.z = z.as<const X>();
    if (dt_bias) args.dt_bias = dt_bias.as<const float>();
    args.y = call.outputs[0].as<X>();
    args.state = state.as<float>();
    args.u_row = u.stride[0];
    args.dt_row = dt.stride[0];
    args.A_row = A.stride[0];
    args.B_row = B.stride[0];
    args.B_group = B.stride[1];
    args.C_row = C.stride[0];
    args.C_group = C.stride[1];
    args.z_row = z ? z.stride[0] : 0;
    args.y_row = call.outputs[0].stride[0];
    args.channels = u.dim[1];
    args.channels_per_group = u.dim[1] / B.dim[1];
    args.states = static_cast<int>(A.dim[1]);
    args.dt_softplus = call.flag("dt_softplus");
    args.sequences = {starts.as<const std::int32_t>(), slot_in.as<const std::int32_t>(),
                      slot_out.as<const std::int32_t>(), static_cast<int>(slot_in.dim[0])};
    launch_for_rule(launch, call.choice<Discretisation>("discretisation"), args, call.steps);
  });
  return launched(call);
}

}  // namespace

extern const Kernel selective_scan_kernel{"selective_scan", "sequential", supports, run};

}  // namespace krait::cuda
