// Weights in panels, of any type, as float32.
#pragma once

#include "backends/cpu/block_panels.h"
#include "backends/cpu/simd.hpp"

namespace krait::cpu::KRAIT_ISA {

using Words = xsimd::batch<std::uint32_t, Arch>;

KRAIT_INLINE Words load_words(const std::byte* p) {
  return Words::load_unaligned(reinterpret_cast<const std::uint32_t*>(p));
}

/// The codes of inputs 4n to 4n+3 of a group, n < 8, for the rows of vector v: bytes of its lanes.
template <DType type>
KRAIT_INLINE Words codes(const std::byte* group, int n, int v) {
  constexpr int kBits = kFormat<type>.bits, kVector = Unit<type>::kVector;
  const std::byte* rows = group + v * 4 * kLanes;
  if constexpr (kBits == 8) return load_words(rows + n * kVector);
  const int j = n % 4, h = n / 4;
  const Words halves = load_words(rows + j * kVector);
  const Words low = (h ? halves >> 4 : halves) & Words(0x0f0f0f0fu);
  if constexpr (kBits == 5) {
    const Words high = load_words(rows + 4 * kVector);
    return low | ((h ? high >> j : high << (4 - j)) & Words(0x10101010u));
  }
  if constexpr (kBits == 6) {
    const Words high = load_words(rows + (4 + h) * kVector);
    return low | ((j < 2 ? high << (4 - 2 * j) : high >> (2 * j - 4)) & Words(0x30303030u));
  }
  return low;
}

/// Byte k of every lane, as a float.
KRAIT_INLINE Batch byte_of(Words lanes, int k) {
  const Words byte = k < 3 ? (lanes >> (8 * k)) & Words(0xffu) : lanes >> 24;
  return xsimd::to_float(xsimd::bitwise_cast<std::int32_t>(byte));
}

/// What turns the codes of one half of a group into values: scale · q + min.
struct Scale {
  Batch scale, min;
};

/// Small number `i` of each row, with its sign.
KRAIT_INLINE Batch small_number(const std::byte* numbers, int i, int v) {
  const Words lanes = load_words(numbers + i / 4 * 4 * kPanel + v * 4 * kLanes);
  const Ints top = xsimd::bitwise_cast<std::int32_t>(lanes << (24 - 8 * (i % 4)));
  return xsimd::to_float(top >> 24);
}

/// Of half h of group g of a unit, for the rows of vector v.
template <DType type>
KRAIT_INLINE Scale scale_of(const std::byte* unit, int g, int h, int v) {
  using U = Unit<type>;
  constexpr BlockFormat kOf = kFormat<type>;
  Scale result;
  result.scale = load(reinterpret_cast<const f16*>(unit) + v * kLanes);
  if constexpr (kOf.has_min) {
    result.min = load(reinterpret_cast<const f16*>(unit + U::kMin) + v * kLanes);
  }
  if constexpr (kOf.small_scales > 0) {
    const int i = kOf.small_scales == U::kGroups ? g : 2 * g + h;
    result.scale = result.scale * small_number(unit + U::kSmall, i, v);
    if constexpr (kOf.has_min) {
      result.min = Batch(0.0f) - result.min * small_number(unit + U::kSmallMin, i, v);
    }
  }
  if constexpr (!kOf.has_min) result.min = result.scale * Batch(-static_cast<float>(kOf.offset));
  return result;
}

/// Inputs [first, first + count) of a panel as float32 [count, kPanel]; both multiples of 32.
///
/// scale · q is exact, so the value has the one rounding that the format gives it, with or without
/// fused multiply-add.
template <DType type>
inline void widen_blocks(const std::byte* panel, std::int64_t first, std::int64_t count,
                         float* wide) {
  using U = Unit<type>;
  for (std::int64_t i = first; i < first + count; i += 32, wide += 32 * kPanel) {
    const std::byte* unit = panel + i / kFormat<type>.inputs * U::kBytes;
    const int g = static_cast<int>(i % kFormat<type>.inputs / 32);
    const std::byte* group = unit + U::kCodes + g * U::kGroup;
    for (int v = 0; v < kPanelVectors; ++v) {
      const Scale scales[2] = {scale_of<type>(unit, g, 0, v), scale_of<type>(unit, g, 1, v)};
      KRAIT_UNROLL
      for (int n = 0; n < 8; ++n) {
        const Words four = codes<type>(group, n, v);
        const auto& [scale, min] = scales[n / 4];
        KRAIT_UNROLL
        for (int k = 0; k < 4; ++k) {
          store(wide + (4 * n + k) * kPanel + v * kLanes, fma(byte_of(four, k), scale, min));
        }
      }
    }
  }
}

inline void widen_f16(const f16* panel, std::int64_t first, std::int64_t count, float* wide) {
  for (std::int64_t i = 0; i < count * kPanel; i += kLanes) {
    store(wide + i, load(panel + first * kPanel + i));
  }
}

/// Pairs of inputs share a lane, the first one in its low half. Odd `first` is not needed.
inline void widen_bf16(const std::byte* panel, std::int64_t first, std::int64_t count,
                       float* wide) {
  const std::byte* pairs = panel + first / 2 * 4 * kPanel;
  for (std::int64_t i = 0; i < count; i += 2, pairs += 4 * kPanel, wide += 2 * kPanel) {
    for (int v = 0; v < kPanelVectors; ++v) {
      const Words pair = load_words(pairs + v * 4 * kLanes);
      store(wide + v * kLanes, xsimd::bitwise_cast<float>(pair << 16));
      store(wide + kPanel + v * kLanes, xsimd::bitwise_cast<float>(pair & Words(0xffff0000u)));
    }
  }
}

/// Inputs [first, first + count) of panel p as float32 [count, kPanel]; the last input of an odd
/// number of them may be followed by a row of zeros. `first` is a multiple of 32.
inline void widen(const LinearArgs& args, std::int64_t p, std::int64_t first, std::int64_t count,
                  float* wide) {
  const std::byte* panel = args.w + p * args.panel_bytes;
  switch (args.weight) {
    case DType::f16:
      return widen_f16(reinterpret_cast<const f16*>(panel), first, count, wide);
    case DType::bf16:
      return widen_bf16(panel, first, count, wide);
#define KRAIT_WIDEN(type) \
  case DType::type:       \
    return widen_blocks<DType::type>(panel, first, count, wide);
      KRAIT_WIDEN(q8_0)
      KRAIT_WIDEN(q4_0)
      KRAIT_WIDEN(q4_1)
      KRAIT_WIDEN(q5_0)
      KRAIT_WIDEN(q5_1)
      KRAIT_WIDEN(q4_k)
      KRAIT_WIDEN(q5_k)
      KRAIT_WIDEN(q6_k)
#undef KRAIT_WIDEN
    default: {
      const float* from = reinterpret_cast<const float*>(panel) + first * kPanel;
      for (std::int64_t i = 0; i < count * kPanel; i += kLanes) store(wide + i, load(from + i));
    }
  }
}

/// Asks for memory that will be read soon; what lies beyond the weights does no harm.
KRAIT_INLINE void prefetch(const std::byte* p, std::int64_t bytes) {
  for (std::int64_t at = 0; at < bytes; at += 64) __builtin_prefetch(p + at);
}
inline constexpr int kAhead = 1536;  ///< bytes that are on their way meanwhile

/// Asks for what comes after inputs [first, first + count) of panel p: the panel goes on, or that
/// of the next block begins. While a part is multiplied nothing else would be read.
inline void prefetch_next(const LinearArgs& args, std::int64_t p, std::int64_t p0, std::int64_t p1,
                          std::int64_t first, std::int64_t count) {
  const std::int64_t part = count * args.panel_bytes / args.inputs;
  const bool ends = first + count >= args.inputs;
  const std::byte* next = args.w + (ends ? p + p1 - p0 : p) * args.panel_bytes +
                          (ends ? 0 : (first + count) * args.panel_bytes / args.inputs);
  prefetch(next, part);
}

}  // namespace krait::cpu::KRAIT_ISA
