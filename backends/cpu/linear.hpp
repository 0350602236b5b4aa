// linear: y[t,o] = bias[o] + Σ_i x[t,i] w[o,i], a lane per output.
//
// One accumulator per output adds the products in the order of i, whatever the shape of the tile it
// stands in, so that a token's result does not depend on how many tokens a call has.
#pragma once

#include <cstddef>

#include "backends/cpu/widen.hpp"

namespace krait::cpu::KRAIT_ISA {

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

/// The part of a product over inputs [first, first + count): panels in float32, `stride` apart.
struct Part {
  const float* w;
  std::int64_t stride;
  std::int64_t first, count;
};

/// The sums of the inputs before this part stand in y; of the first part, they are the bias.
template <int tokens, int panels>
inline void tile(const LinearArgs& args, std::int64_t t, std::int64_t panel, const float* w,
                 const Part& part) {
  constexpr int kVectors = panels * kPanelVectors;
  const float* x = args.x.at(t) + part.first;
  Batch sums[tokens][kVectors];
  KRAIT_UNROLL
  for (int v = 0; v < kVectors; ++v) {
    const std::int64_t o = panel * kPanel + v * kLanes;
    const std::int64_t left = args.outputs - o;
    const bool has_bias = args.bias && left > 0;
    const Batch start = has_bias ? load_upto(args.bias + o, left) : Batch(0.0f);
    KRAIT_UNROLL
    for (int j = 0; j < tokens; ++j) {
      const bool begun = part.first > 0 && left > 0;
      sums[j][v] = begun ? load_upto(args.y.at(t + j) + o, left) : start;
    }
  }
  for (std::int64_t i = 0; i < part.count; ++i) {
    Batch weights[kVectors];
    KRAIT_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      weights[v] =
          load(w + v / kPanelVectors * part.stride + i * kPanel + v % kPanelVectors * kLanes);
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
    KRAIT_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      const std::int64_t o = panel * kPanel + v * kLanes;
      if (o < args.outputs) store_upto(args.y.at(t + j) + o, sums[j][v], args.outputs - o);
    }
  }
}

/// All panels of [p0, p1) for `tokens` tokens.
template <int tokens>
inline void tile_row(const LinearArgs& args, std::int64_t t, std::int64_t p0, std::int64_t p1,
                     const Part& part) {
  constexpr int kPanels = tile_panels(tokens);
  std::int64_t p = p0;
  const auto w = [&](std::int64_t panel) { return part.w + (panel - p0) * part.stride; };
  for (; p + kPanels <= p1; p += kPanels) tile<tokens, kPanels>(args, t, p, w(p), part);
  for (; p < p1; ++p) tile<tokens, 1>(args, t, p, w(p), part);
}

/// The tokens that do not fill a tile.
template <int tokens>
inline void tile_rest(const LinearArgs& args, std::int64_t t, std::int64_t rest, std::int64_t p0,
                      std::int64_t p1, const Part& part) {
  if constexpr (tokens > 0) {
    if (rest == tokens) return tile_row<tokens>(args, t, p0, p1, part);
    tile_rest<tokens - 1>(args, t, rest, p0, p1, part);
  }
}

inline void multiply(const LinearArgs& args, std::int64_t t0, std::int64_t t1, std::int64_t p0,
                     std::int64_t p1, const Part& part) {
  std::int64_t t = t0;
  for (; t + kTileTokens <= t1; t += kTileTokens) tile_row<kTileTokens>(args, t, p0, p1, part);
  tile_rest<kTileTokens - 1>(args, t, t1 - t, p0, p1, part);
}

inline void linear(const LinearArgs& args, std::int64_t t0, std::int64_t t1, std::int64_t p0,
                   std::int64_t p1) {
  if (args.weight == DType::f32) {
    const std::int64_t stride = args.inputs * kPanel;
    const float* w = reinterpret_cast<const float*>(args.w) + p0 * stride;
    return multiply(args, t0, t1, p0, p1, {w, stride, 0, args.inputs});
  }
  // Other types are widened once for all tokens of the block, in parts that stay in the first-level
  // cache.
  constexpr std::int64_t kPart = 128;
  alignas(64) float wide[kBlockPanels * kPart * kPanel];
  for (std::int64_t first = 0; first < args.inputs; first += kPart) {
    const std::int64_t count = min(kPart, args.inputs - first);
    for (std::int64_t p = p0; p < p1; ++p) {
      widen(args, p, first, count, wide + (p - p0) * kPart * kPanel);
    }
    multiply(args, t0, t1, p0, p1, {wide, kPart * kPanel, first, count});
  }
}

}  // namespace krait::cpu::KRAIT_ISA
