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

/// One lane of the four of channel `d`, by all threads of whole warps.
template <class X>
struct StepLane {
  const ScanArgs<X>& args;
  const int lane;
  const bool active;  ///< lanes beyond the last channel take part in sums, but store nothing
  const std::int64_t channel;
  float4 A;
  float bias, skip;

  __device__ StepLane(const ScanArgs<X>& args, int d)
      : args(args),
        lane(static_cast<int>(threadIdx.x) % kStepLanes),
        active(d < args.channels),
        channel(active ? d : 0),
        A(load_quad(args.A + channel * args.A_row + 4 * lane)),
        bias(args.dt_bias ? args.dt_bias[channel] : 0.0f),
        skip(args.skip ? args.skip[channel] : 0.0f) {}

  __device__ float4* state_of(int slot) const {
    return reinterpret_cast<float4*>(args.state) + (slot * args.channels + channel) * kStepLanes +
           lane;
  }

  /// Reads the states of sequences `first` and the next ones.
  __device__ void ask(int first, float4 (&h)[kStepSequences]) const {
#pragma unroll
    for (int i = 0; i < kStepSequences; ++i) {
      const int from = first + i < args.sequences.count ? args.sequences.slot_in[first + i] : -1;
      h[i] = from >= 0 ? *state_of(from) : float4{};
    }
  }

  /// Advances them, makes y and stores both; `dt_of(i)` is dt of sequence `first` + i, before bias
  /// and softplus.
  template <Discretisation rule, class DtOf>
  __device__ void run(int first, float4 (&h)[kStepSequences], DtOf&& dt_of) const {
    const int count = min(kStepSequences, args.sequences.count - first);
    const std::int64_t group = channel / args.channels_per_group;
    const X* const B_from = args.B + group * args.B_group + 4 * lane;
    const X* const C_from = args.C + group * args.C_group + 4 * lane;
    float dt[kStepSequences], u[kStepSequences], z[kStepSequences];
    float4 B[kStepSequences], C[kStepSequences];
#pragma unroll
    for (int i = 0; i < kStepSequences; ++i) {
      const int at = min(i, count - 1);
      const std::int64_t t = first + at;  // sequence s has token s alone
      dt[i] = dt_of(at);
      u[i] = to_float(args.u[t * args.u_row + channel]);
      z[i] = args.z ? to_float(args.z[t * args.z_row + channel]) : 0.0f;
      B[i] = load_quad(B_from + t * args.B_row);
      C[i] = load_quad(C_from + t * args.C_row);
    }
#pragma unroll
    for (int i = 0; i < kStepSequences; ++i) {
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
      y = lanes_sum<kStepLanes>(y);
      if (!active) continue;
      if (lane == 0) {
        if (args.skip) y = fmaf(skip, u[i], y);
        if (args.z) y *= silu(z[i]);
        args.y[t * args.y_row + channel] = from_float<X>(y);
      }
      if (to >= 0) *state_of(to) = h[i];
    }
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
