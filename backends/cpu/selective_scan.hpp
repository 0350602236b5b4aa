// selective_scan: h ← Ā h + B̄ u, y = C·h, with skip, gate, dt bias and softplus in the same pass,
// in place on the state.
//
// Tokens go in blocks: first dt and dt·u of a vector of channels for the whole block, then the
// recurrence, then skip and gate. The recurrence has two forms:
//  - a lane per channel, for long sequences: states and A are transposed once per sequence, B and C
//    broadcast (they are the same for all channels of a group), no sums across lanes;
//  - a lane per state, for short sequences and for groups narrower than a vector: nothing is
//    transposed, and the sums across lanes of a whole vector of channels are made at once.
#pragma once

#include "backends/cpu/math.hpp"

namespace krait::cpu::KRAIT_ISA {

inline constexpr int kBlockTokens = 32;
inline constexpr int kBlockChannels = 64;  ///< of a lane per state
inline constexpr int kBlockStates = 64;    ///< more states take several passes, adding up in y
/// From this length on transposing the states pays.
inline constexpr std::int64_t kLongSequence = 4;

/// States that stay in registers during a block of tokens.
#if defined(__AVX512F__) || defined(__aarch64__)
inline constexpr int kRegisterStates = 16;
#else
inline constexpr int kRegisterStates = 8;
#endif

/// What the recurrence takes from a token: for the rule `mamba` dt·log2(e), for the others dt.
template <Discretisation rule>
KRAIT_INLINE Batch step_of(Batch dt) {
  return rule == Discretisation::mamba ? dt * Batch(kLog2e) : dt;
}

/// (eˣ − 1)/x, given eˣ: a polynomial of degree 6, 0.06 u, where the quotient would cancel.
KRAIT_INLINE Batch expm1_quotient(Batch x, Batch exp_x) {
  Batch p(0.00020098337f);
  p = fma(p, x, Batch(0.00140041823f));
  p = fma(p, x, Batch(0.00833282247f));
  p = fma(p, x, Batch(0.0416651368f));
  p = fma(p, x, Batch(0.166666687f));
  p = fma(p, x, Batch(0.50000006f));
  p = fma(p, x, Batch(1.0f));
  return xsimd::select(xsimd::abs(x) < Batch(0.5f), p, (exp_x - Batch(1.0f)) / x);
}

/// h ← Ā h + (B̄/(dt·B)) · B · input, input = dt·u.
template <Discretisation rule>
KRAIT_INLINE Batch advance(Batch h, Batch step, Batch A, Batch B, Batch input) {
  if constexpr (rule == Discretisation::mamba) {
    return fma(exp2(step * A), h, B * input);
  } else if constexpr (rule == Discretisation::zoh) {
    const Batch x = step * A;
    const Batch a = exp(x);
    return fma(a, h, expm1_quotient(x, a) * B * input);
  } else if constexpr (rule == Discretisation::euler) {
    return fma(fma(step, A, Batch(1.0f)), h, B * input);
  } else {
    const Batch half = step * A * Batch(0.5f);
    const Batch q = Batch(1.0f) / (Batch(1.0f) - half);
    return fma((Batch(1.0f) + half) * q, h, q * B * input);
  }
}

/// Some channels of one sequence, all in one group where B and C are broadcast, and up to
/// kBlockStates of their states.
struct ScanBlock {
  const ScanArgs& args;
  std::int64_t d, count;       ///< channels
  std::int64_t n0, states;     ///< states
  std::int64_t begin, length;  ///< tokens
  const float* from;           ///< state (d, n0), or zeros
  std::int64_t from_row;       ///< from channel to channel
  float* to;                   ///< null: discarded

  const float* A(std::int64_t channel) const { return args.A.at(d + channel) + n0; }
  const float* B(std::int64_t t, std::int64_t group) const {
    return args.B.at(begin + t) + group * args.B_group + n0;
  }
  const float* C(std::int64_t t, std::int64_t group) const {
    return args.C.at(begin + t) + group * args.C_group + n0;
  }
};

/// A vector of channels [c, c + left) of a block at token t: the step, and dt·u.
template <Discretisation rule>
KRAIT_INLINE void load_token(const ScanBlock& block, std::int64_t c, std::int64_t left, Batch bias,
                             std::int64_t t, Batch& step, Batch& input) {
  const ScanArgs& args = block.args;
  const std::int64_t token = block.begin + t, d = block.d + c;
  Batch dt = load_upto(args.dt.at(token) + d, left) + bias;
  if (args.dt_softplus) dt = softplus(dt);
  step = step_of<rule>(dt);
  input = dt * load_upto(args.u.at(token) + d, left);
}

/// Completes y with what earlier passes over other states left there, skip and gate.
KRAIT_INLINE void store_token(const ScanBlock& block, std::int64_t c, std::int64_t left, Batch skip,
                              std::int64_t t, Batch y) {
  const ScanArgs& args = block.args;
  const std::int64_t token = block.begin + t, d = block.d + c;
  float* target = args.y.at(token) + d;
  if (block.n0 > 0) y = y + load_upto(target, left);
  if (block.n0 + block.states == args.states) {
    if (args.skip) y = fma(skip, load_upto(args.u.at(token) + d, left), y);
    if (args.z.data) y = y * silu(load_upto(args.z.at(token) + d, left));
  }
  store_upto(target, y, left);
}

KRAIT_INLINE Batch channel_vector(const float* p, const ScanBlock& block, std::int64_t c,
                                  std::int64_t left) {
  return p ? load_upto(p + block.d + c, left) : Batch(0.0f);
}

// ---- a lane per channel ----

/// matrix[n] = element n of the rows p + lane·row, with the last of `count` rows repeated.
inline void transpose_in(const float* p, std::int64_t row, std::int64_t count, std::int64_t states,
                         Batch* matrix) {
  std::int64_t n = 0;
  for (; n + kLanes <= states; n += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) {
      matrix[n + lane] = load(p + min(lane, count - 1) * row + n);
    }
    transpose(matrix + n);
  }
  for (; n < states; ++n) matrix[n] = load_strided(p + n, row, count);
}

/// The reverse; destroys the matrix.
inline void transpose_out(Batch* matrix, float* p, std::int64_t row, std::int64_t count,
                          std::int64_t states) {
  std::int64_t n = 0;
  for (; n + kLanes <= states; n += kLanes) {
    transpose(matrix + n);
    for (std::int64_t lane = 0; lane < count; ++lane) store(p + lane * row + n, matrix[n + lane]);
  }
  for (; n < states; ++n) store_strided(p + n, row, matrix[n], count);
}

/// What the parts of a block of tokens pass on.
struct ScanTokens {
  Batch step[kBlockTokens];
  Batch input[kBlockTokens];
  Batch y[kBlockTokens];
};

/// The recurrence of `chunk` states, in registers, over the tokens [t, t + tokens).
template <Discretisation rule, int chunk>
inline void recur(Batch* h, const Batch* A, const float* B, std::int64_t B_row, const float* C,
                  std::int64_t C_row, ScanTokens& at, std::int64_t tokens) {
  Batch state[chunk];
  KRAIT_UNROLL
  for (int i = 0; i < chunk; ++i) state[i] = h[i];
  for (std::int64_t j = 0; j < tokens; ++j) {
    const Batch step = at.step[j];
    const Batch input = at.input[j];
    Batch y = at.y[j];
    KRAIT_UNROLL
    for (int i = 0; i < chunk; ++i) {
      state[i] = advance<rule>(state[i], step, A[i], Batch(B[i]), input);
      y = fma(Batch(C[i]), state[i], y);
    }
    at.y[j] = y;
    B += B_row;
    C += C_row;
  }
  KRAIT_UNROLL
  for (int i = 0; i < chunk; ++i) h[i] = state[i];
}

/// All states of a block over the tokens [t, t + tokens).
template <Discretisation rule>
inline void recur_all(const ScanBlock& block, Batch* h, const Batch* A, ScanTokens& at,
                      std::int64_t t, std::int64_t tokens) {
  constexpr int kChunk = rule == Discretisation::mamba ? kRegisterStates : 4;
  const std::int64_t group = block.d / block.args.channels_per_group;
  const std::int64_t B_row = block.args.B.row, C_row = block.args.C.row;
  const float* B = block.B(t, group);
  const float* C = block.C(t, group);
  std::int64_t n = 0;
  for (; n + kChunk <= block.states; n += kChunk) {
    recur<rule, kChunk>(h + n, A + n, B + n, B_row, C + n, C_row, at, tokens);
  }
  if constexpr (kChunk > 8) {
    if (n + 8 <= block.states) {
      recur<rule, 8>(h + n, A + n, B + n, B_row, C + n, C_row, at, tokens);
      n += 8;
    }
  }
  for (; n < block.states; ++n) {
    recur<rule, 1>(h + n, A + n, B + n, B_row, C + n, C_row, at, tokens);
  }
}

template <Discretisation rule>
inline void scan_channels(const ScanBlock& block) {
  const ScanArgs& args = block.args;
  const std::int64_t count = block.count;
  Batch h[kBlockStates], A[kBlockStates];
  transpose_in(block.A(0), args.A.row, count, block.states, A);
  transpose_in(block.from, block.from_row, count, block.states, h);
  const Batch bias = channel_vector(args.dt_bias, block, 0, count);
  const Batch skip = channel_vector(args.skip, block, 0, count);
  ScanTokens at;
  for (std::int64_t t = 0; t < block.length; t += kBlockTokens) {
    const std::int64_t tokens = min(kBlockTokens, block.length - t);
    for (std::int64_t j = 0; j < tokens; ++j) {
      load_token<rule>(block, 0, count, bias, t + j, at.step[j], at.input[j]);
      at.y[j] = Batch(0.0f);
    }
    recur_all<rule>(block, h, A, at, t, tokens);
    for (std::int64_t j = 0; j < tokens; ++j) {
      store_token(block, 0, count, skip, t + j, at.y[j]);
    }
  }
  if (block.to) transpose_out(h, block.to, args.state_row, count, block.states);
}

// ---- a lane per state ----

/// Rows of states, of A, B and C from some state on, of one channel at one token.
struct StateRows {
  const float* from;
  float* to;
  const float* A;
  const float* B;
  const float* C;
};

/// Stores the new states and returns the products C·h, to be summed.
template <Discretisation rule>
KRAIT_INLINE Batch advance_row(const StateRows& rows, std::int64_t states, Batch step,
                               Batch input) {
  Batch sum(0.0f);
  for (std::int64_t n = 0; n < states; n += kLanes) {
    const std::int64_t left = states - n;
    const Batch next =
        advance<rule>(load_upto(rows.from + n, left), step, load_upto(rows.A + n, left),
                      load_upto(rows.B + n, left), input);
    store_upto(rows.to + n, next, left);
    const Batch product = load_upto(rows.C + n, left) * next;
    sum = sum + (left < kLanes ? keep_first(product, left) : product);
  }
  return sum;
}

/// The same for a vector of channels of one group with vectors·kLanes states: B and C stay in
/// registers. Returns the channels' y.
template <Discretisation rule, int vectors>
inline Batch advance_rows(StateRows rows, std::int64_t from_row, std::int64_t to_row,
                          std::int64_t A_row, const float* step, const float* input) {
  Batch B[vectors], C[vectors], sums[kLanes];
  KRAIT_UNROLL
  for (int v = 0; v < vectors; ++v) {
    B[v] = load(rows.B + v * kLanes);
    C[v] = load(rows.C + v * kLanes);
  }
  for (int lane = 0; lane < kLanes; ++lane) {
    Batch sum(0.0f);
    KRAIT_UNROLL
    for (int v = 0; v < vectors; ++v) {
      const Batch next = advance<rule>(load(rows.from + v * kLanes), Batch(step[lane]),
                                       load(rows.A + v * kLanes), B[v], Batch(input[lane]));
      store(rows.to + v * kLanes, next);
      sum = fma(C[v], next, sum);
    }
    sums[lane] = sum;
    rows.from += from_row;
    rows.to += to_row;
    rows.A += A_row;
  }
  return sums_of(sums);
}

template <Discretisation rule>
inline void scan_states(const ScanBlock& block) {
  const ScanArgs& args = block.args;
  const std::int64_t count = block.count;
  alignas(64) float scratch[kBlockChannels * kBlockStates];  // states that no slot keeps
  alignas(64) float step[kBlockChannels], input[kBlockChannels];
  float* to = block.to ? block.to : scratch;
  const std::int64_t to_row = block.to ? args.state_row : kBlockStates;
  const float* from = block.from;
  std::int64_t from_row = block.from_row;
  for (std::int64_t t = 0; t < block.length; ++t, from = to, from_row = to_row) {
    for (std::int64_t c = 0; c < count; c += kLanes) {
      Batch steps, inputs;
      const Batch bias = channel_vector(args.dt_bias, block, c, count - c);
      load_token<rule>(block, c, count - c, bias, t, steps, inputs);
      steps.store_aligned(step + c);
      inputs.store_aligned(input + c);
    }
    for (std::int64_t c0 = 0; c0 < count; c0 += kLanes) {
      const std::int64_t lanes = min(kLanes, count - c0);
      const std::int64_t group = (block.d + c0) / args.channels_per_group;
      const bool one_group = (block.d + c0 + lanes - 1) / args.channels_per_group == group;
      const StateRows rows{from + c0 * from_row, to + c0 * to_row, block.A(c0), block.B(t, group),
                           block.C(t, group)};
      Batch y;
      if (lanes == kLanes && one_group && block.states == 16) {
        y = advance_rows<rule, 16 / kLanes>(rows, from_row, to_row, args.A.row, step + c0,
                                            input + c0);
      } else {
        Batch sums[kLanes];
        for (std::int64_t lane = 0; lane < kLanes; ++lane) {
          sums[lane] = Batch(0.0f);
          if (lane >= lanes) continue;
          const std::int64_t c = c0 + lane, g = (block.d + c) / args.channels_per_group;
          sums[lane] = advance_row<rule>(
              {from + c * from_row, to + c * to_row, block.A(c), block.B(t, g), block.C(t, g)},
              block.states, Batch(step[c]), Batch(input[c]));
        }
        y = sums_of(sums);
      }
      const Batch skip = channel_vector(args.skip, block, c0, lanes);
      store_token(block, c0, lanes, skip, t, y);
    }
  }
  if (block.length > 0 || !block.to) return;
  for (std::int64_t c = 0; c < count; ++c) {
    for (std::int64_t n = 0; n < block.states; ++n) {
      block.to[c * to_row + n] = from[c * from_row + n];
    }
  }
}

// ---- both ----

/// Some channels in one of the two forms, for as many states as a pass takes.
template <void (*form)(const ScanBlock&)>
inline void scan_passes(const ScanArgs& args, std::int64_t sequence, std::int64_t d,
                        std::int64_t count) {
  alignas(64) static constexpr float zeros[kBlockStates] = {};
  const std::int64_t begin = args.sequences.starts[sequence];
  const std::int64_t from = args.sequences.slot_in[sequence];
  const std::int64_t to = args.sequences.slot_out[sequence];
  for (std::int64_t n = 0; n < args.states; n += kBlockStates) {
    float* state = args.state + d * args.state_row + n;
    form({args, d, count, n, min(kBlockStates, args.states - n), begin,
          args.sequences.starts[sequence + 1] - begin,
          from < 0 ? zeros : state + from * args.state_slot, from < 0 ? 0 : args.state_row,
          to < 0 ? nullptr : state + to * args.state_slot});
  }
}

template <Discretisation rule>
inline void scan(const ScanArgs& args, std::int64_t sequence, std::int64_t d0, std::int64_t d1) {
  const std::int64_t length = args.sequences.starts[sequence + 1] - args.sequences.starts[sequence];
  const bool wide_groups = args.channels_per_group >= kLanes;
  const bool lane_per_channel = wide_groups && (length >= kLongSequence || args.states < kLanes);
  for (std::int64_t d = d0; d < d1;) {
    std::int64_t count = min(kBlockChannels, d1 - d);
    if (lane_per_channel) {
      const std::int64_t group_left = args.channels_per_group - d % args.channels_per_group;
      count = min(min(kLanes, count), group_left);
      scan_passes<scan_channels<rule>>(args, sequence, d, count);
    } else {
      scan_passes<scan_states<rule>>(args, sequence, d, count);
    }
    d += count;
  }
}

inline void selective_scan(const ScanArgs& args, std::int64_t sequence, std::int64_t d0,
                           std::int64_t d1) {
  switch (args.rule) {
    case Discretisation::mamba:
      return scan<Discretisation::mamba>(args, sequence, d0, d1);
    case Discretisation::zoh:
      return scan<Discretisation::zoh>(args, sequence, d0, d1);
    case Discretisation::euler:
      return scan<Discretisation::euler>(args, sequence, d0, d1);
    case Discretisation::bilinear:
      return scan<Discretisation::bilinear>(args, sequence, d0, d1);
  }
}

}  // namespace krait::cpu::KRAIT_ISA
