// causal_conv1d: a thread per token and channel; afterwards a thread per sequence and channel moves
// the state on. Two launches, so that no token reads a state that is already the next one.
#include "backends/cuda/early_launch.cuh"
#include "backends/cuda/numeric.cuh"
#include "backends/cuda/sequences.cuh"
#include "ops/enums.h"
#include "runtime/core/try.h"

namespace krait::cuda {
namespace {

constexpr int kThreads = 128;

template <class X>
struct Args {
  const X* x;
  std::int64_t x_row;
  const float* w;
  std::int64_t w_row;
  const float* bias;
  X* y;
  std::int64_t y_row;
  float* state;  ///< [C, D, K-1]
  std::int64_t channels;
  int taps;
  bool silu_after;
  Sequences sequences;

  __device__ float* state_of(int slot, std::int64_t d) const {
    return state + (slot * channels + d) * (taps - 1);
  }
  /// Input `t` of a sequence that begins at `begin`: from x, from the state before it, or zero.
  __device__ float input(std::int64_t t, std::int64_t begin, int slot, std::int64_t d) const {
    if (t >= begin) return to_float(x[t * x_row + d]);
    return slot < 0 ? 0.0f : state_of(slot, d)[t - begin + taps - 1];
  }
};

template <class X>
__global__ void convolve(Args<X> args) {
  const std::int64_t d = std::int64_t{blockIdx.y} * kThreads + threadIdx.x;
  if (d >= args.channels) return;
  const std::int64_t t = blockIdx.x;
  const int s = args.sequences.of_token(t);
  const std::int64_t begin = args.sequences.starts[s];
  const int slot = args.sequences.slot_in[s];
  float sum = args.bias ? args.bias[d] : 0.0f;
  for (int k = 0; k < args.taps; ++k) {
    sum =
        fmaf(args.w[d * args.w_row + k], args.input(t - (args.taps - 1) + k, begin, slot, d), sum);
  }
  args.y[t * args.y_row + d] = from_float<X>(args.silu_after ? silu(sum) : sum);
}

/// The last K−1 inputs of every sequence, oldest first. Rising k: in place, an old column is read
/// before it is overwritten.
template <class X>
__global__ void move_state(Args<X> args) {
  const std::int64_t d = std::int64_t{blockIdx.y} * kThreads + threadIdx.x;
  if (d >= args.channels) return;
  const int s = static_cast<int>(blockIdx.x);
  const int to = args.sequences.slot_out[s];
  if (to < 0) return;
  const std::int64_t begin = args.sequences.starts[s], end = args.sequences.starts[s + 1];
  for (int k = 0; k + 1 < args.taps; ++k) {
    args.state_of(to, d)[k] =
        args.input(end - (args.taps - 1) + k, begin, args.sequences.slot_in[s], d);
  }
}

/// Decoding with the usual number of taps: one token per sequence, so one thread can read the state
/// and then move it on. A thread has a channel of a few sequences, whose states are on the way
/// together, and before the inputs are there.
constexpr int kUsualTaps = 4;
constexpr int kSequences = 4;
template <class X>
__global__ void __launch_bounds__(kThreads) step(Args<X> args, bool next_first) {
  const std::int64_t d = std::int64_t{blockIdx.y} * kThreads + threadIdx.x;
  const int first = static_cast<int>(blockIdx.x) * kSequences;
  const int count = d < args.channels ? min(kSequences, args.sequences.count - first) : 0;
  float w[kUsualTaps] = {}, inputs[kSequences][kUsualTaps];
  float bias = 0;
  if (count > 0) {
    bias = args.bias ? args.bias[d] : 0.0f;
#pragma unroll
    for (int k = 0; k < kUsualTaps; ++k) w[k] = args.w[d * args.w_row + k];
  }
  int to[kSequences];
#pragma unroll
  for (int i = 0; i < kSequences; ++i) {
    const int from = i < count ? args.sequences.slot_in[first + i] : -1;
    to[i] = i < count ? args.sequences.slot_out[first + i] : -1;
#pragma unroll
    for (int k = 0; k + 1 < kUsualTaps; ++k)
      inputs[i][k] = from >= 0 ? args.state_of(from, d)[k] : 0.0f;
  }
  wait_for_inputs(next_first);
  // Sequence s has token s alone.
#pragma unroll
  for (int i = 0; i < kSequences; ++i)
    inputs[i][kUsualTaps - 1] = i < count ? to_float(args.x[(first + i) * args.x_row + d]) : 0.0f;
  float sum[kSequences];
#pragma unroll
  for (int i = 0; i < kSequences; ++i) {
    sum[i] = bias;
#pragma unroll
    for (int k = 0; k < kUsualTaps; ++k) sum[i] = fmaf(w[k], inputs[i][k], sum[i]);
  }
  if (args.silu_after) {
#pragma unroll
    for (float& y : sum) y = silu(y);
  }
#pragma unroll
  for (int i = 0; i < kSequences; ++i) {
    if (i < count) args.y[(first + i) * args.y_row + d] = from_float<X>(sum[i]);
    if (to[i] < 0) continue;
#pragma unroll
    for (int k = 1; k < kUsualTaps; ++k) args.state_of(to[i], d)[k - 1] = inputs[i][k];
  }
}

std::string supports(const Call& call, const Device&) {
  return want_float("x", call.inputs[0]);
}

Status run(const Call& call, const Launch& launch) {
  const auto [x, w, bias, state, starts, slot_in, slot_out] = call.in<7>();
  const TensorView& y = call.outputs[0];
  const std::int64_t tokens = x.dim[0], sequences = slot_in.dim[0];
  with_float_type(x.dtype, [&](auto type) {
    using X = decltype(type);
    const Args<X> args{x.as<const X>(),
                       x.stride[0],
                       w.as<const float>(),
                       w.stride[0],
                       bias ? bias.as<const float>() : nullptr,
                       y.as<X>(),
                       y.stride[0],
                       state.as<float>(),
                       x.dim[1],
                       static_cast<int>(w.dim[1]),
                       call.choice<Activation>("activation") == Activation::silu,
                       {starts.as<const std::int32_t>(), slot_in.as<const std::int32_t>(),
                        slot_out.as<const std::int32_t>(), static_cast<int>(sequences)}};
    const unsigned columns = blocks_of(x.dim[1], kThreads);
    if (call.steps && args.taps == kUsualTaps) {
      if (sequences > 0) {
        launch_early(launch, step<X>, dim3(blocks_of(sequences, kSequences), columns), kThreads, 0,
                     args, launch.next_first);
      }
      return;
    }
    if (tokens > 0)
      convolve<<<dim3(static_cast<unsigned>(tokens), columns), kThreads, 0, stream_of(launch)>>>(
          args);
    if (sequences > 0) {
      move_state<<<dim3(static_cast<unsigned>(sequences), columns), kThreads, 0,
                   stream_of(launch)>>>(args);
    }
  });
  return launched(call);
}

}  // namespace

extern const Kernel causal_conv1d_kernel{"causal_conv1d", "token_per_thread", supports, run};

}  // namespace krait::cuda
