// linear: y[t,o] = bias[o] + Σ_i x[t,i] w[o,i], a lane per output.
//
// One accumulator per output adds the products in the order of i, whatever the shape of the tile it
// stands in, so that a token's result does not depend on how many tokens a call has.
#pragma once

#include "backends/cpu/simd.hpp"

namespace krait::cpu::KRAIT_ISA {

inline constexpr int kPanelVectors = static_cast<int>(kPanel) / kLanes;

/// Vectors of accumulators that fit the registers next to weights and inputs.
#if defined(__AVX512F__) || defined(__aarch64__)
inline constexpr int kAccumulators = 24;
#else
inline constexpr int kAccumulators = 12;
#endif
inline constexpr int kTileTokens =
    kAccumulators / kPanelVectors < 6 ? kAccumulators / kPanelVectors : 6;

/// Panels that a tile of so many tokens takes at once: independent sums to hide the latency of the
/// products, and streams of weights to keep the memory busy.
constexpr int tile_panels(int tokens) {
  const int panels = kAccumulators / (tokens * kPanelVectors);
  return panels > 4 ? 4 : panels;
}

template <class Weight, int tokens, int panels>
inline void tile(const LinearArgs& args, std::int64_t t, std::int64_t panel) {
  constexpr int kVectors = panels * kPanelVectors;
  const std::int64_t inputs = args.inputs;
  const std::int64_t panel_size = inputs * kPanel;
  const Weight* w = static_cast<const Weight*>(args.w) + panel * panel_size;
  const float* x = args.x.at(t);
  Batch sums[tokens][kVectors];
  KRAIT_UNROLL
  for (int v = 0; v < kVectors; ++v) {
    const std::int64_t o = panel * kPanel + v * kLanes;
    const Batch start =
        args.bias && o < args.outputs ? load_upto(args.bias + o, args.outputs - o) : Batch(0.0f);
    KRAIT_UNROLL
    for (int j = 0; j < tokens; ++j) sums[j][v] = start;
  }
  for (std::int64_t i = 0; i < inputs; ++i) {
    Batch weights[kVectors];
    KRAIT_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      weights[v] =
          load(w + v / kPanelVectors * panel_size + i * kPanel + v % kPanelVectors * kLanes);
    }
    KRAIT_UNROLL
    for (int j = 0; j < tokens; ++j) {
      const Batch input(x[j * args.x.row + i]);
      KRAIT_UNROLL
      for (int v = 0; v < kVectors; ++v) sums[j][v] = fma(input, weights[v], sums[j][v]);
    }
  }
  KRAIT_UNROLL
  for (int j = 0; j < tokens; ++j) {
    float* y = args.y.at(t + j) + panel * kPanel;
    KRAIT_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      const std::int64_t left = args.outputs - panel * kPanel - v * kLanes;
      if (left > 0) store_upto(y + v * kLanes, sums[j][v], left);
    }
  }
}

/// All panels of [p0, p1) for `tokens` tokens.
template <class Weight, int tokens>
inline void tile_row(const LinearArgs& args, std::int64_t t, std::int64_t p0, std::int64_t p1) {
  constexpr int kPanels = tile_panels(tokens);
  std::int64_t p = p0;
  for (; p + kPanels <= p1; p += kPanels) tile<Weight, tokens, kPanels>(args, t, p);
  for (; p < p1; ++p) tile<Weight, tokens, 1>(args, t, p);
}

/// The tokens that do not fill a tile.
template <class Weight, int tokens>
inline void tile_rest(const LinearArgs& args, std::int64_t t, std::int64_t rest, std::int64_t p0,
                      std::int64_t p1) {
  if constexpr (tokens > 0) {
    if (rest == tokens) return tile_row<Weight, tokens>(args, t, p0, p1);
    tile_rest<Weight, tokens - 1>(args, t, rest, p0, p1);
  }
}

template <class Weight>
inline void multiply(const LinearArgs& args, std::int64_t t0, std::int64_t t1, std::int64_t p0,
                     std::int64_t p1) {
  std::int64_t t = t0;
  for (; t + kTileTokens <= t1; t += kTileTokens) tile_row<Weight, kTileTokens>(args, t, p0, p1);
  tile_rest<Weight, kTileTokens - 1>(args, t, t1 - t, p0, p1);
}

inline void linear(const LinearArgs& args, std::int64_t t0, std::int64_t t1, std::int64_t p0,
                   std::int64_t p1) {
  if (args.weight == DType::f16) return multiply<f16>(args, t0, t1, p0, p1);
  if (args.weight == DType::bf16) return multiply<bf16>(args, t0, t1, p0, p1);
  multiply<float>(args, t0, t1, p0, p1);
}

}  // namespace krait::cpu::KRAIT_ISA
