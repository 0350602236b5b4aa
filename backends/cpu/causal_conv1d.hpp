// causal_conv1d: y[t,d] = act(bias[d] + Σ_k w[d,k] x[t−(K−1)+k, d]), a lane per channel. Inputs
// before the sequence's first token come from the state.
#pragma once

#include "backends/cpu/math.hpp"

namespace krait::cpu::KRAIT_ISA {

/// One vector of channels of one sequence.
struct ConvBlock {
  const ConvArgs& args;
  std::int64_t d, count;       ///< its channels
  std::int64_t begin, length;  ///< its tokens
  const float* from;           ///< the state of channel d, null: zeros
  float* to;                   ///< null: discarded

  KRAIT_INLINE Batch x(std::int64_t t) const { return load_upto(args.x.at(begin + t) + d, count); }
  KRAIT_INLINE Batch weight(std::int64_t k) const {
    return load_strided(args.w + d * args.w_row + k, args.w_row, count);
  }
  KRAIT_INLINE Batch bias() const {
    return args.bias ? load_upto(args.bias + d, count) : Batch(0.0f);
  }
  /// The input `t` tokens after the sequence's first, from the state where t < 0.
  KRAIT_INLINE Batch input(std::int64_t t) const {
    if (t >= 0) return x(t);
    if (!from) return Batch(0.0f);
    return load_strided(from + args.taps - 1 + t, args.state_row, count);
  }
  KRAIT_INLINE void output(std::int64_t t, Batch sum) const {
    if (args.activation == Activation::silu) sum = silu(sum);
    store_upto(args.y.at(begin + t) + d, sum, count);
  }
  KRAIT_INLINE void save(std::int64_t k, Batch value) const {
    if (to) store_strided(to + k, args.state_row, value, count);
  }
};

/// K known: all tokens, with weights and the last K−1 inputs in registers.
template <int taps>
inline void convolve_tokens(const ConvBlock& block, const Batch* weights, Batch* history) {
  Batch w[taps], last[taps];
  KRAIT_UNROLL
  for (int k = 0; k < taps; ++k) w[k] = weights[k];
  KRAIT_UNROLL
  for (int k = 0; k + 1 < taps; ++k) last[k] = history[k];
  const Batch bias = block.bias();
  for (std::int64_t t = 0; t < block.length; ++t) {
    last[taps - 1] = block.x(t);
    Batch sum = bias;
    KRAIT_UNROLL
    for (int k = 0; k < taps; ++k) sum = fma(w[k], last[k], sum);
    block.output(t, sum);
    KRAIT_UNROLL
    for (int k = 0; k + 1 < taps; ++k) last[k] = last[k + 1];
  }
  KRAIT_UNROLL
  for (int k = 0; k + 1 < taps; ++k) history[k] = last[k];
}

template <int taps>
inline void convolve(const ConvBlock& block) {
  Batch w[taps], history[taps - 1];
  const bool dense = block.count == kLanes && block.from && block.args.w_row == taps &&
                     block.args.state_row == taps - 1;
  if (dense) {
    load_columns<taps>(block.args.w + block.d * taps, w);
    load_columns<taps - 1>(block.from, history);
  } else {
    for (int k = 0; k < taps; ++k) w[k] = block.weight(k);
    for (int k = 0; k + 1 < taps; ++k) history[k] = block.input(k + 1 - taps);
  }
  convolve_tokens<taps>(block, w, history);
  if (dense && block.to) return store_columns<taps - 1>(block.to, history);
  for (int k = 0; k + 1 < taps; ++k) block.save(k, history[k]);
}

/// Any K.
inline void convolve_any(const ConvBlock& block) {
  const std::int64_t taps = block.args.taps;
  for (std::int64_t t = 0; t < block.length; ++t) {
    Batch sum = block.bias();
    for (std::int64_t k = 0; k < taps; ++k) {
      sum = fma(block.weight(k), block.input(t - (taps - 1) + k), sum);
    }
    block.output(t, sum);
  }
  // In rising order, so that a state updated in place is read before it is overwritten.
  for (std::int64_t k = 0; k + 1 < taps; ++k) {
    block.save(k, block.input(block.length - (taps - 1) + k));
  }
}

inline void causal_conv1d(const ConvArgs& args, std::int64_t sequence, std::int64_t d0,
                          std::int64_t d1) {
  const std::int64_t begin = args.sequences.starts[sequence];
  const std::int64_t length = args.sequences.starts[sequence + 1] - begin;
  const std::int64_t from = args.sequences.slot_in[sequence];
  const std::int64_t to = args.sequences.slot_out[sequence];
  for (std::int64_t d = d0; d < d1; d += kLanes) {
    float* state = args.state + d * args.state_row;
    const ConvBlock block{args,
                          d,
                          min(kLanes, d1 - d),
                          begin,
                          length,
                          from < 0 ? nullptr : state + from * args.state_slot,
                          to < 0 ? nullptr : state + to * args.state_slot};
    switch (args.taps) {
      case 2:
        convolve<2>(block);
        break;
      case 3:
        convolve<3>(block);
        break;
      case 4:
        convolve<4>(block);
        break;
      default:
        convolve_any(block);
    }
  }
}

}  // namespace krait::cpu::KRAIT_ISA
