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
inline constexpr int kBlockStates = 64;  ///< more states take several passes, adding up in y
/// From this length on transposing the states pays.
inline constexpr std::int64_t kLongSequence = 4;

/// States that stay in registers during a block of tokens.
#if defined(__AVX512F__) || defined(__aarch64__)
inline constexpr int kRegisterStates = 16;
#else
inline constexpr int kRegisterStates = 4;
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

/// A vector of channels of one sequence, and up to kBlockStates of their states.
struct ScanBlock {
  const ScanArgs& args;
  std::int64_t d, count;       ///< channels
  std::int64_t n0, states;     ///< states
  std::int64_t begin, length;  ///< tokens
  const float* from;           ///< state (d, n0), null: zeros
  float* to;                   ///< null: discarded

  const float* A(std::int64_t lane) const { return args.A.at(d + lane) + n0; }
  const float* B(std::int64_t t, std::int64_t lane) const {
    return args.B.at(begin + t) + (d + lane) / args.channels_per_group * args.B_group + n0;
  }
  const float* C(std::int64_t t, std::int64_t lane) const {
    return args.C.at(begin + t) + (d + lane) / args.channels_per_group * args.C_group + n0;
  }
};

/// What a block of tokens passes between its three parts, a lane per channel.
struct ScanTokens {
  Batch step[kBlockTokens];
  Batch input[kBlockTokens];
  Batch y[kBlockTokens];
};

// ---- a lane per channel ----

struct ChannelLanes {
  Batch h[kBlockStates];
  Batch A[kBlockStates];

  /// matrix[n] = rows p + lane·row, element n, with the last of `count` rows repeated.
  static inline void transpose(const float* p, std::int64_t row, std::int64_t count,
                               std::int64_t states, Batch* matrix) {
    std::int64_t n = 0;
    for (; n + kLanes <= states; n += kLanes) {
      Batch tile[kLanes];
      for (int lane = 0; lane < kLanes; ++lane)
        tile[lane] = load(p + min(lane, count - 1) * row + n);
      xsimd::transpose(tile, tile + kLanes);
      for (int lane = 0; lane < kLanes; ++lane) matrix[n + lane] = tile[lane];
    }
    for (; n < states; ++n) matrix[n] = load_strided(p + n, row, count);
  }

  explicit ChannelLanes(const ScanBlock& block) {
    transpose(block.A(0), block.args.A.row, block.count, block.states, A);
    if (block.from) {
      transpose(block.from, block.args.state_row, block.count, block.states, h);
    } else {
      for (std::int64_t n = 0; n < block.states; ++n) h[n] = Batch(0.0f);
    }
  }

  void finish(const ScanBlock& block) {
    if (!block.to) return;
    const std::int64_t row = block.args.state_row;
    std::int64_t n = 0;
    for (; n + kLanes <= block.states; n += kLanes) {
      xsimd::transpose(h + n, h + n + kLanes);
      for (std::int64_t lane = 0; lane < block.count; ++lane)
        store(block.to + lane * row + n, h[n + lane]);
    }
    for (; n < block.states; ++n) store_strided(block.to + n, row, h[n], block.count);
  }

  /// States [n, n + chunk) over the tokens [t, t + tokens).
  template <Discretisation rule, int chunk>
  inline void run(const ScanBlock& block, ScanTokens& at, std::int64_t t, std::int64_t tokens,
                  std::int64_t n) {
    Batch state[chunk];
    KRAIT_UNROLL
    for (int i = 0; i < chunk; ++i) state[i] = h[n + i];
    const float* B = block.B(t, 0) + n;
    const float* C = block.C(t, 0) + n;
    for (std::int64_t j = 0; j < tokens; ++j) {
      const Batch step = at.step[j];
      const Batch input = at.input[j];
      Batch y = at.y[j];
      KRAIT_UNROLL
      for (int i = 0; i < chunk; ++i) {
        state[i] = advance<rule>(state[i], step, A[n + i], Batch(B[i]), input);
        y = fma(Batch(C[i]), state[i], y);
      }
      at.y[j] = y;
      B += block.args.B.row;
      C += block.args.C.row;
    }
    KRAIT_UNROLL
    for (int i = 0; i < chunk; ++i) h[n + i] = state[i];
  }

  template <Discretisation rule>
  void block(const ScanBlock& block, ScanTokens& at, std::int64_t t, std::int64_t tokens) {
    constexpr int kChunk = rule == Discretisation::mamba ? kRegisterStates : 4;
    std::int64_t n = 0;
    for (; n + kChunk <= block.states; n += kChunk) run<rule, kChunk>(block, at, t, tokens, n);
    if constexpr (kChunk > 8) {
      if (n + 8 <= block.states) {
        run<rule, 8>(block, at, t, tokens, n);
        n += 8;
      }
    }
    for (; n < block.states; ++n) run<rule, 1>(block, at, t, tokens, n);
  }
};

// ---- a lane per state ----

struct StateLanes {
  alignas(64) float scratch[kLanes * kBlockStates];  ///< the states that no slot keeps
  float* to;
  std::int64_t to_row;

  explicit StateLanes(const ScanBlock& block)
      : to(block.to ? block.to : scratch), to_row(block.to ? block.args.state_row : kBlockStates) {
    if (block.length > 0) return;
    for (std::int64_t lane = 0; lane < block.count; ++lane) {
      for (std::int64_t n = 0; n < block.states; ++n) {
        to[lane * to_row + n] = block.from ? block.from[lane * block.args.state_row + n] : 0.0f;
      }
    }
  }

  void finish(const ScanBlock&) {}

  template <Discretisation rule>
  void block(const ScanBlock& block, ScanTokens& at, std::int64_t t, std::int64_t tokens) {
    const auto* steps = reinterpret_cast<const float*>(at.step);
    const auto* inputs = reinterpret_cast<const float*>(at.input);
    for (std::int64_t j = 0; j < tokens; ++j) {
      const bool first = t + j == 0;
      const float* from = first ? block.from : to;
      const std::int64_t from_row = first ? block.args.state_row : to_row;
      Batch sums[kLanes];
      for (std::int64_t lane = 0; lane < kLanes; ++lane) {
        sums[lane] = Batch(0.0f);
        if (lane >= block.count) continue;
        const Batch step(steps[j * kLanes + lane]);
        const Batch input(inputs[j * kLanes + lane]);
        const float* A = block.A(lane);
        const float* B = block.B(t + j, lane);
        const float* C = block.C(t + j, lane);
        for (std::int64_t n = 0; n < block.states; n += kLanes) {
          const std::int64_t left = block.states - n;
          const Batch h = from ? load_upto(from + lane * from_row + n, left) : Batch(0.0f);
          const Batch next =
              advance<rule>(h, step, load_upto(A + n, left), load_upto(B + n, left), input);
          store_upto(to + lane * to_row + n, next, left);
          const Batch product = load_upto(C + n, left) * next;
          sums[lane] = sums[lane] + (left < kLanes ? keep_first(product, left) : product);
        }
      }
      at.y[j] = at.y[j] + sums_of(sums);
    }
  }
};

// ---- both ----

template <Discretisation rule>
inline void load_tokens(const ScanBlock& block, ScanTokens& at, std::int64_t t,
                        std::int64_t tokens) {
  const ScanArgs& args = block.args;
  const Batch bias = args.dt_bias ? load_upto(args.dt_bias + block.d, block.count) : Batch(0.0f);
  for (std::int64_t j = 0; j < tokens; ++j) {
    const std::int64_t token = block.begin + t + j;
    Batch dt = load_upto(args.dt.at(token) + block.d, block.count) + bias;
    if (args.dt_softplus) dt = softplus(dt);
    at.step[j] = step_of<rule>(dt);
    at.input[j] = dt * load_upto(args.u.at(token) + block.d, block.count);
    // What earlier states added up.
    at.y[j] = block.n0 > 0 ? load_upto(args.y.at(token) + block.d, block.count) : Batch(0.0f);
  }
}

inline void store_tokens(const ScanBlock& block, const ScanTokens& at, std::int64_t t,
                         std::int64_t tokens) {
  const ScanArgs& args = block.args;
  const bool last = block.n0 + block.states == args.states;
  const Batch skip = args.skip && last ? load_upto(args.skip + block.d, block.count) : Batch(0.0f);
  for (std::int64_t j = 0; j < tokens; ++j) {
    const std::int64_t token = block.begin + t + j;
    Batch y = at.y[j];
    if (args.skip && last) y = fma(skip, load_upto(args.u.at(token) + block.d, block.count), y);
    if (args.z.data && last) y = y * silu(load_upto(args.z.at(token) + block.d, block.count));
    store_upto(args.y.at(token) + block.d, y, block.count);
  }
}

template <class Lanes, Discretisation rule>
inline void scan(const ScanBlock& block) {
  ScanTokens at;
  Lanes lanes(block);
  for (std::int64_t t = 0; t < block.length; t += kBlockTokens) {
    const std::int64_t tokens = min(kBlockTokens, block.length - t);
    load_tokens<rule>(block, at, t, tokens);
    lanes.template block<rule>(block, at, t, tokens);
    store_tokens(block, at, t, tokens);
  }
  lanes.finish(block);
}

template <class Lanes>
inline void scan(const ScanBlock& block) {
  switch (block.args.rule) {
    case Discretisation::mamba:
      return scan<Lanes, Discretisation::mamba>(block);
    case Discretisation::zoh:
      return scan<Lanes, Discretisation::zoh>(block);
    case Discretisation::euler:
      return scan<Lanes, Discretisation::euler>(block);
    case Discretisation::bilinear:
      return scan<Lanes, Discretisation::bilinear>(block);
  }
}

inline void selective_scan(const ScanArgs& args, std::int64_t sequence, std::int64_t d0,
                           std::int64_t d1) {
  const std::int64_t begin = args.sequences.starts[sequence];
  const std::int64_t length = args.sequences.starts[sequence + 1] - begin;
  const std::int64_t from = args.sequences.slot_in[sequence];
  const std::int64_t to = args.sequences.slot_out[sequence];
  const bool wide_groups = args.channels_per_group >= kLanes;
  const bool lane_per_channel = wide_groups && (length >= kLongSequence || args.states < kLanes);
  for (std::int64_t d = d0; d < d1;) {
    std::int64_t count = min(kLanes, d1 - d);
    if (lane_per_channel) {
      count = min(count, args.channels_per_group - d % args.channels_per_group);
    }
    for (std::int64_t n = 0; n < args.states; n += kBlockStates) {
      float* state = args.state + d * args.state_row + n;
      const ScanBlock block{args,
                            d,
                            count,
                            n,
                            min(kBlockStates, args.states - n),
                            begin,
                            length,
                            from < 0 ? nullptr : state + from * args.state_slot,
                            to < 0 ? nullptr : state + to * args.state_slot};
      lane_per_channel ? scan<ChannelLanes>(block) : scan<StateLanes>(block);
    }
    d += count;
  }
}

}  // namespace krait::cpu::KRAIT_ISA
