// linear: y[t,o] = bias[o] + Σ_i x[t,i] w[o,i], a lane per output.
//
// One accumulator per output adds the products in the order of i, whatever the shape of the tile it
// stands in, so that a token's result does not depend on how many tokens a call has.
#pragma once

#include <cstddef>
#include <type_traits>

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

/// Vectors of weights that a step of a product reads: of one input, or of the two of a bfloat16
/// pair.
template <class Weight>
struct Step {
  static constexpr int kInputs = 1;
  static KRAIT_INLINE void read(const std::byte* p, Batch (&weights)[1]) {
    weights[0] = load(reinterpret_cast<const Weight*>(p));
  }
};
template <>
struct Step<bf16> {
  static constexpr int kInputs = 2;
  static KRAIT_INLINE void read(const std::byte* p, Batch (&weights)[2]) {
    const Words pair = load_words(p);
    weights[0] = xsimd::bitwise_cast<float>(pair << 16);
    weights[1] = xsimd::bitwise_cast<float>(pair & Words(0xffff0000u));
  }
};

/// The part of a product over inputs [first, first + count): panels from p0 on, `stride` bytes
/// apart.
struct Part {
  const std::byte* w;
  std::int64_t stride;
  std::int64_t first, count;
};

/// The sums of the inputs before this part stand in y; of the first part, they are the bias.
template <class Weight, int tokens, int panels>
inline void tile(const LinearArgs& args, std::int64_t t, std::int64_t panel, const std::byte* w,
                 const Part& part) {
  constexpr int kVectors = panels * kPanelVectors;
  constexpr int kInputs = Step<Weight>::kInputs;
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
  const auto step = [&](std::int64_t i, auto inputs) {
    constexpr int kCount = decltype(inputs)::value;
    Batch weights[kVectors][kInputs];
    if constexpr (tokens == 1 && sizeof(Weight) == 2) {
      // Half of a panel of float32 is too short for the processor to find out by itself.
      std::int64_t ahead = 2 * i * kPanel + kAhead;
      if (ahead >= part.stride) ahead += (panels - 1) * part.stride;
      KRAIT_UNROLL
      for (int p = 0; p < panels; ++p) __builtin_prefetch(w + p * part.stride + ahead);
    }
    KRAIT_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      const std::int64_t at = i * kPanel + v % kPanelVectors * kLanes * kInputs;
      Step<Weight>::read(
          w + v / kPanelVectors * part.stride + at * static_cast<std::int64_t>(sizeof(Weight)),
          weights[v]);
    }
    KRAIT_UNROLL
    for (int k = 0; k < kCount; ++k) {
      KRAIT_UNROLL
      for (int j = 0; j < tokens; ++j) {
        const Batch input(x[j * args.x.row + i + k]);
        KRAIT_UNROLL
        for (int v = 0; v < kVectors; ++v) sums[j][v] = fma(input, weights[v][k], sums[j][v]);
      }
    }
  };
  std::int64_t i = 0;
  for (; i + kInputs <= part.count; i += kInputs) step(i, std::integral_constant<int, kInputs>());
  if (i < part.count) step(i, std::integral_constant<int, 1>());
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
template <class Weight, int tokens>
inline void tile_row(const LinearArgs& args, std::int64_t t, std::int64_t p0, std::int64_t p1,
                     const Part& part) {
  constexpr int kPanels = tile_panels(tokens);
  std::int64_t p = p0;
  const auto w = [&](std::int64_t panel) { return part.w + (panel - p0) * part.stride; };
  for (; p + kPanels <= p1; p += kPanels) tile<Weight, tokens, kPanels>(args, t, p, w(p), part);
  for (; p < p1; ++p) tile<Weight, tokens, 1>(args, t, p, w(p), part);
}

/// The tokens that do not fill a tile.
template <class Weight, int tokens>
inline void tile_rest(const LinearArgs& args, std::int64_t t, std::int64_t rest, std::int64_t p0,
                      std::int64_t p1, const Part& part) {
  if constexpr (tokens > 0) {
    if (rest == tokens) return tile_row<Weight, tokens>(args, t, p0, p1, part);
    tile_rest<Weight, tokens - 1>(args, t, rest, p0, p1, part);
  }
}

template <class Weight>
inline void multiply(const LinearArgs& args, std::int64_t t0, std::int64_t t1, std::int64_t p0,
                     std::int64_t p1, const Part& part) {
  std::int64_t t = t0;
  for (; t + kTileTokens <= t1; t += kTileTokens) {
    tile_row<Weight, kTileTokens>(args, t, p0, p1, part);
  }
  tile_rest<Weight, kTileTokens - 1>(args, t, t1 - t, p0, p1, part);
}

/// One token times block weights, which become float32 in registers on their way into the sums: so
/// memory is read all the time.
template <DType type, int panels>
inline void token_tile(const LinearArgs& args, std::int64_t t, std::int64_t panel) {
  using U = Unit<type>;
  constexpr int kVectors = panels * kPanelVectors;
  const float* x = args.x.at(t);
  const std::byte* const first = args.w + panel * args.panel_bytes;
  const std::byte* unit = first;
  const auto unit_of = [&](int v) { return unit + v / kPanelVectors * args.panel_bytes; };
  Batch sums[kVectors];
  KRAIT_UNROLL
  for (int v = 0; v < kVectors; ++v) {
    const std::int64_t o = panel * kPanel + v * kLanes, left = args.outputs - o;
    const bool has_bias = args.bias && left > 0;
    sums[v] = has_bias ? load_upto(args.bias + o, left) : Batch(0.0f);
  }
  for (std::int64_t i = 0; i < args.inputs; unit += U::kBytes) {
    for (int g = 0; g < U::kGroups; ++g, x += 32, i += 32) {
      const int codes_at = U::kCodes + g * U::kGroup;
      // At the end of the panels, those after them.
      std::int64_t ahead = unit - first + codes_at + kAhead;
      if (ahead >= args.panel_bytes) ahead += (panels - 1) * args.panel_bytes;
      Scale scales[kVectors][2];
      KRAIT_UNROLL
      for (int v = 0; v < kVectors; ++v) {
        KRAIT_UNROLL
        for (int h = 0; h < 2; ++h) {
          scales[v][h] = scale_of<type>(unit_of(v), g, h, v % kPanelVectors);
        }
        if (v % kPanelVectors == 0) {
          prefetch(first + v / kPanelVectors * args.panel_bytes + ahead, U::kGroup + 64);
        }
      }
      KRAIT_UNROLL
      for (int n = 0; n < 8; ++n) {
        KRAIT_UNROLL
        for (int v = 0; v < kVectors; ++v) {
          const Words four = codes<type>(unit_of(v) + codes_at, n, v % kPanelVectors);
          const auto& [scale, min] = scales[v][n / 4];
          KRAIT_UNROLL
          for (int k = 0; k < 4; ++k) {
            sums[v] = fma(Batch(x[4 * n + k]), fma(byte_of(four, k), scale, min), sums[v]);
          }
        }
      }
    }
  }
  KRAIT_UNROLL
  for (int v = 0; v < kVectors; ++v) {
    const std::int64_t o = panel * kPanel + v * kLanes;
    if (o < args.outputs) store_upto(args.y.at(t) + o, sums[v], args.outputs - o);
  }
}

template <DType type>
inline void token_blocks(const LinearArgs& args, std::int64_t t, std::int64_t p0, std::int64_t p1) {
  constexpr int kPanels = kPanelVectors < 4 ? 4 / kPanelVectors : 1;
  std::int64_t p = p0;
  for (; p + kPanels <= p1; p += kPanels) token_tile<type, kPanels>(args, t, p);
  for (; p < p1; ++p) token_tile<type, 1>(args, t, p);
}

/// Whether the weights are of a block type.
inline bool one_token(const LinearArgs& args, std::int64_t t, std::int64_t p0, std::int64_t p1) {
  switch (args.weight) {
#define KRAIT_TOKEN(type)                       \
  case DType::type:                             \
    token_blocks<DType::type>(args, t, p0, p1); \
    return true;
    KRAIT_TOKEN(q8_0)
    KRAIT_TOKEN(q4_0)
    KRAIT_TOKEN(q4_1)
    KRAIT_TOKEN(q5_0)
    KRAIT_TOKEN(q5_1)
    KRAIT_TOKEN(q4_k)
    KRAIT_TOKEN(q5_k)
    KRAIT_TOKEN(q6_k)
#undef KRAIT_TOKEN
    default:
      return false;
  }
}

inline void linear(const LinearArgs& args, std::int64_t t0, std::int64_t t1, std::int64_t p0,
                   std::int64_t p1) {
  const Part whole{args.w + p0 * args.panel_bytes, args.panel_bytes, 0, args.inputs};
  if (args.weight == DType::f32) return multiply<float>(args, t0, t1, p0, p1, whole);
  if (t1 - t0 <= kTileTokens) {
    // A single tile widens on the way as well as ahead, and reads memory all the time.
    if (args.weight == DType::f16) return multiply<f16>(args, t0, t1, p0, p1, whole);
    if (args.weight == DType::bf16) return multiply<bf16>(args, t0, t1, p0, p1, whole);
  }
  if (t1 - t0 == 1 && one_token(args, t0, p0, p1)) return;
  // The rest is widened once for all tokens of the block, in parts that stay in the first-level
  // cache.
  constexpr std::int64_t kPart = 128;
  constexpr std::int64_t kStride = kPart * kPanel;
  alignas(64) float wide[kBlockPanels * kStride];
  for (std::int64_t first = 0; first < args.inputs; first += kPart) {
    const std::int64_t count = min(kPart, args.inputs - first);
    for (std::int64_t p = p0; p < p1; ++p) {
      widen(args, p, first, count, wide + (p - p0) * kStride);
      prefetch_next(args, p, p0, p1, first, kPart);
    }
    multiply<float>(args, t0, t1, p0, p1,
                    {reinterpret_cast<const std::byte*>(wide), 4 * kStride, first, count});
  }
}

}  // namespace krait::cpu::KRAIT_ISA
