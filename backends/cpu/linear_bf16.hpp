// linear with weights and inputs in bfloat16: y[t,o] = bias[o] + Σ_i x[t,i] w[o,i].
//
// Included by files that define
//   Batch dot(Batch sums, Words weights, Words inputs): sums + the products of both bfloat16
//   numbers of every lane.
#pragma once

#include "backends/cpu/linear.hpp"

namespace krait::cpu::KRAIT_ISA {

/// A rounded token is its inputs in bfloat16, and a zero after an odd number of them.
inline void round_rows(const RoundedArgs& args, std::int64_t t0, std::int64_t t1) {
  const std::int64_t inputs = args.linear.inputs;
  for (std::int64_t t = t0; t < t1; ++t) {
    const float* x = args.linear.x.at(t);
    auto* rounded = reinterpret_cast<bf16*>(args.rounded + t * args.row_bytes);
    std::int64_t i = 0;
    for (; i + kLanes <= inputs; i += kLanes) store(rounded + i, load(x + i));
    if (i == inputs) continue;
    bf16 rest[kLanes];
    store(rest, load_part(x + i, inputs - i));
    __builtin_memcpy(rounded + i, rest, static_cast<std::size_t>((inputs - i + 1) / 2 * 4));
  }
}

template <int tokens, int panels>
inline void bf16_tile(const RoundedArgs& args, std::int64_t t, std::int64_t panel) {
  constexpr int kVectors = panels * kPanelVectors;
  const LinearArgs& linear = args.linear;
  const std::byte* w = linear.w + panel * linear.panel_bytes;
  const std::byte* x = args.rounded + t * args.row_bytes;
  Batch sums[tokens][kVectors];
  KRAIT_UNROLL
  for (int v = 0; v < kVectors; ++v) {
    const std::int64_t o = panel * kPanel + v * kLanes, left = linear.outputs - o;
    const bool has_bias = linear.bias && left > 0;
    const Batch start = has_bias ? load_upto(linear.bias + o, left) : Batch(0.0f);
    KRAIT_UNROLL
    for (int j = 0; j < tokens; ++j) sums[j][v] = start;
  }
  for (std::int64_t pair = 0; pair < (linear.inputs + 1) / 2; ++pair) {
    Words weights[kVectors];
    KRAIT_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      weights[v] = load_words(w + v / kPanelVectors * linear.panel_bytes +
                              4 * (pair * kPanel + v % kPanelVectors * kLanes));
    }
    KRAIT_UNROLL
    for (int j = 0; j < tokens; ++j) {
      std::uint32_t two;
      __builtin_memcpy(&two, x + j * args.row_bytes + 4 * pair, sizeof two);
      const Words inputs(two);
      KRAIT_UNROLL
      for (int v = 0; v < kVectors; ++v) sums[j][v] = dot(sums[j][v], weights[v], inputs);
    }
  }
  KRAIT_UNROLL
  for (int j = 0; j < tokens; ++j) {
    KRAIT_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      const std::int64_t o = panel * kPanel + v * kLanes;
      if (o < linear.outputs) store_upto(linear.y.at(t + j) + o, sums[j][v], linear.outputs - o);
    }
  }
}

template <int tokens>
inline void bf16_tiles(const RoundedArgs& args, std::int64_t t, std::int64_t p0, std::int64_t p1) {
  constexpr int kPanels = tile_panels(tokens);
  std::int64_t p = p0;
  for (; p + kPanels <= p1; p += kPanels) bf16_tile<tokens, kPanels>(args, t, p);
  for (; p < p1; ++p) bf16_tile<tokens, 1>(args, t, p);
}

inline void linear_bf16(const RoundedArgs& args, std::int64_t t0, std::int64_t t1, std::int64_t p0,
                        std::int64_t p1) {
  std::int64_t t = t0;
  for (; t + kTileTokens <= t1; t += kTileTokens) bf16_tiles<kTileTokens>(args, t, p0, p1);
  for (; t + 2 <= t1; t += 2) bf16_tiles<2>(args, t, p0, p1);
  if (t < t1) bf16_tiles<1>(args, t, p0, p1);
}

}  // namespace krait::cpu::KRAIT_ISA
