// Decoding with sixteen states, the usual number: every sequence has one token. A channel's states
// are split over four neighbouring lanes, which advance a few sequences, whose states are on the
// way together, and before the inputs are there. Bound by reading and writing the states.
#pragma once

#include "backends/cuda/cuda.h"
#include "backends/cuda/discretise.cuh"
#include "backends/cuda/numeric.cuh"
#include "backends/cuda/sequences.cuh"

namespace krait::cuda {

/// Operands of a scan.
template <class X>
struct ScanArgs {
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

/// The operands that a scan and dt_proj_scan share; skip, z and dt_bias may be null.
struct ScanViews {
  const TensorView &u, &A, &B, &C, &skip, &z, &dt_bias, &y, &state;
};

template <class X>
ScanArgs<X> scan_args(const ScanViews& views) {
  ScanArgs<X> args{};
  args.u = views.u.as<const X>();
  args.A = views.A.as<const float>();
  args.B = views.B.as<const X>();
  args.C = views.C.as<const X>();
  if (views.skip) args.skip = views.skip.as<const float>();
  if (views.z) args.z = views.z.as<const X>();
  if (views.dt_bias) args.dt_bias = views.dt_bias.as<const float>();
  args.y = views.y.as<X>();
  args.state = views.state.as<float>();
  args.u_row = views.u.stride[0];
  args.A_row = views.A.stride[0];
  args.B_row = views.B.stride[0];
  args.B_group = views.B.stride[1];
  args.C_row = views.C.stride[0];
  args.C_group = views.C.stride[1];
  args.z_row = views.z ? views.z.stride[0] : 0;
  args.y_row = views.y.stride[0];
  args.channels = views.u.dim[1];
  args.channels_per_group = views.u.dim[1] / views.B.dim[1];
  args.states = static_cast<int>(views.A.dim[1]);
  return args;
}

constexpr int kStepLanes = 4;      ///< of a channel, each with four states
constexpr int kStepSequences = 4;  ///< together

/// Whether lanes have four states each, and can read as many elements of A, B, C and the state at a
/// time.
inline bool step_fits(const TensorView& A, const TensorView& B, const TensorView& C,
                      const TensorView& state) {
  const auto in_quads = [](const TensorView& view) {
    bool aligned = view.offset % bytes_of(view.dtype, 4) == 0;
    for (int axis = 0; axis + 1 < view.rank; ++axis)
      aligned = aligned && view.stride[axis] % 4 == 0;
    return aligned;
  };
  return A.dim[1] == 4 * kStepLanes && in_quads(A) && in_quads(B) && in_quads(C) && in_quads(state);
}

constexpr int kBatchChannels = 16;  ///< of a block of dt_proj_scan.batch
/// Whether each block's channels are of one group, whose B and C it shares.
inline bool batch_fits(const TensorView& u, const TensorView& B) {
  return B.dim[1] == 1 || u.dim[1] / B.dim[1] % kBatchChannels == 0;
}

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

/// One lane of the four of channel `d`, for sequences `first` and the next ones; by all threads of
/// whole warps. Sequence s has token s alone.
template <class X>
struct StepLane {
  const ScanArgs<X>& args;
  const int lane, first, count;
  const bool active;  ///< lanes beyond the last channel take part in sums, but store nothing
  const std::int64_t channel;
  float4 A, h[kStepSequences];
  float bias, skip;
  const X *B_from, *C_from;
  int to[kStepSequences];  ///< slots; -1: not kept

  /// Reads what no kernel of the chain writes: states, too.
  __device__ StepLane(const ScanArgs<X>& args, int d, int first)
      : args(args),
        lane(static_cast<int>(threadIdx.x) % kStepLanes),
        first(first),
        count(min(kStepSequences, args.sequences.count - first)),
        active(d < args.channels),
        channel(active ? d : 0),
        A(load_quad(args.A + channel * args.A_row + 4 * lane)),
        bias(args.dt_bias ? args.dt_bias[channel] : 0.0f),
        skip(args.skip ? args.skip[channel] : 0.0f) {
    const int group = static_cast<int>(channel) / static_cast<int>(args.channels_per_group);
    B_from = args.B + group * args.B_group + 4 * lane;
    C_from = args.C + group * args.C_group + 4 * lane;
#pragma unroll
    for (int i = 0; i < kStepSequences; ++i) {
      const int from = i < count ? args.sequences.slot_in[first + i] : -1;
      to[i] = i < count ? args.sequences.slot_out[first + i] : -1;
      h[i] = from >= 0 ? *state_of(from) : float4{};
    }
  }

  __device__ float4* state_of(int slot) const {
    return reinterpret_cast<float4*>(args.state) + (slot * args.channels + channel) * kStepLanes +
           lane;
  }

  /// Advances the states, makes y and stores both.
  template <Discretisation rule>
  __device__ void run() {
    const auto token = [&](int i) { return std::int64_t{first + min(i, count - 1)}; };
    float step[kStepSequences], u[kStepSequences], y[kStepSequences];
    float4 B[kStepSequences], C[kStepSequences];
#pragma unroll
    for (int i = 0; i < kStepSequences; ++i) {
      step[i] = args.dt[token(i) * args.dt_row + channel];
      u[i] = to_float(args.u[token(i) * args.u_row + channel]);
      B[i] = load_quad(B_from + token(i) * args.B_row);
      C[i] = load_quad(C_from + token(i) * args.C_row);
    }
    // The lane that adds up a sequence's y also ends it.
    const float own_u = to_float(args.u[token(lane) * args.u_row + channel]);
    const float own_z = args.z ? to_float(args.z[token(lane) * args.z_row + channel]) : 0.0f;
#pragma unroll
    for (float& x : step) x += bias;
    if (args.dt_softplus) {
#pragma unroll
      for (float& x : step) x = softplus(x);
    }
#pragma unroll
    for (int i = 0; i < kStepSequences; ++i) {
      const float input = step[i] * u[i];
      h[i] = {advance<rule>(h[i].x, step[i] * A.x, B[i].x, input),
              advance<rule>(h[i].y, step[i] * A.y, B[i].y, input),
              advance<rule>(h[i].z, step[i] * A.z, B[i].z, input),
              advance<rule>(h[i].w, step[i] * A.w, B[i].w, input)};
      y[i] = fmaf(C[i].w, h[i].w, fmaf(C[i].z, h[i].z, fmaf(C[i].y, h[i].y, C[i].x * h[i].x)));
      if (active && to[i] >= 0) *state_of(to[i]) = h[i];
    }
    float own = sum_of_lane(y);
    if (args.skip) own = fmaf(skip, own_u, own);
    if (args.z) own *= silu(own_z);
    if (active && lane < count) args.y[(first + lane) * args.y_row + channel] = from_float<X>(own);
  }
};

/// Calls body(std::integral_constant<Discretisation, rule>()).
template <class Body>
void with_rule(Discretisation rule, Body&& body) {
  switch (rule) {
    case Discretisation::mamba:
      return body(std::integral_constant<Discretisation, Discretisation::mamba>());
    case Discretisation::zoh:
      return body(std::integral_constant<Discretisation, Discretisation::zoh>());
    case Discretisation::euler:
      return body(std::integral_constant<Discretisation, Discretisation::euler>());
    case Discretisation::bilinear:
      return body(std::integral_constant<Discretisation, Discretisation::bilinear>());
  }
}

}  // namespace krait::cuda
