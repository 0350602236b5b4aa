// linear with block weights and inputs rounded to int8: y[t,o] = bias[o] + Σ_i x[t,i] w[o,i].
//
// A block of inputs that share a scale of the weights, 32 or 16, is d · q with |q| ≤ 127 in a
// token, scale · c + min with codes c in a row, so that its part of the sum is d (scale Σ q c + min
// Σ q): integers but for three operations. Included by files that define
//   Ints dot(Ints sums, Words codes, Ints four): sums + Σ_k code_k · q_k per lane, with codes
//   unsigned and q signed bytes.
#pragma once

#include "backends/cpu/outputs.hpp"
#include "backends/cpu/widen.hpp"

namespace krait::cpu::KRAIT_ISA {

/// Inputs of a block.
constexpr std::int64_t scale_inputs(DType weight) {
  return weight == DType::q6_k ? 16 : 32;
}

/// A rounded token: q[I], then d of every block, then Σ q of every block.
struct Int8Row {
  std::int8_t* q;
  float *d, *sums;
  Int8Row(const RoundedArgs& args, std::int64_t t)
      : q(reinterpret_cast<std::int8_t*>(args.rounded + t * args.row_bytes)),
        d(reinterpret_cast<float*>(q + args.linear.inputs)),
        sums(d + args.linear.inputs / scale_inputs(args.linear.weight)) {}
};

/// One block with an infinity or a NaN: infinities stay alone and make d infinite, which gives
/// infinities of the right sign; a NaN makes d NaN. A power of two stands for an infinity, so that
/// a weight of zero makes the rest of the product zero without rounding, and the whole NaN.
inline void round_special(const float* x, std::int64_t count, std::int8_t* q, float& d) {
  d = __builtin_inff();
  for (std::int64_t i = 0; i < count; ++i) {
    const bool infinite = __builtin_isinf(x[i]) != 0;
    q[i] = static_cast<std::int8_t>(!infinite ? 0 : x[i] > 0 ? 64 : -64);
    if (x[i] != x[i]) d = x[i];
  }
}

/// d = max |x| / 127 and q = x / d, rounded to the nearest. Blocks below 1e-30 count as zeros.
template <std::int64_t count>
inline void round_block(const float* x, std::int8_t* q, float& d) {
  constexpr int kVectors = static_cast<int>(count) / kLanes;
  Ints largest(0);
  for (int v = 0; v < kVectors; ++v) {
    const Ints bits = xsimd::bitwise_cast<std::int32_t>(load(x + v * kLanes));
    largest = xsimd::max(largest, bits & Ints(0x7fffffff));  // of magnitudes: as integers
  }
  alignas(64) std::int32_t lanes[kLanes];
  largest.store_aligned(lanes);
  std::int32_t top = 0;
  for (const std::int32_t lane : lanes) top = lane > top ? lane : top;
  constexpr std::int32_t kInfinity = 0x7f800000;
  if (top >= kInfinity) return round_special(x, count, q, d);
  const float magnitude = __builtin_bit_cast(float, top);
  d = magnitude < 1e-30f ? 0.0f : magnitude / 127.0f;
  const Batch scale(d > 0 ? 127.0f / magnitude : 0.0f);
  alignas(64) std::int32_t whole[count];
  for (int v = 0; v < kVectors; ++v) {
    xsimd::to_int(xsimd::nearbyint(load(x + v * kLanes) * scale)).store_aligned(whole + v * kLanes);
  }
  for (std::int64_t i = 0; i < count; ++i) q[i] = static_cast<std::int8_t>(whole[i]);
}

template <std::int64_t count>
inline void round_rows_in_blocks(const RoundedArgs& args, std::int64_t t0, std::int64_t t1) {
  for (std::int64_t t = t0; t < t1; ++t) {
    const Int8Row row(args, t);
    for (std::int64_t i = 0; i < args.linear.inputs; i += count) {
      round_block<count>(args.linear.x.at(t) + i, row.q + i, row.d[i / count]);
      std::int32_t sum = 0;
      for (std::int64_t k = 0; k < count; ++k) sum += row.q[i + k];
      row.sums[i / count] = static_cast<float>(sum);
    }
  }
}
inline void round_rows(const RoundedArgs& args, std::int64_t t0, std::int64_t t1) {
  if (scale_inputs(args.linear.weight) == 16)
    round_rows_in_blocks<16>(args, t0, t1);
  else
    round_rows_in_blocks<32>(args, t0, t1);
}

/// A part of a panel with its codes one per byte: [inputs / 4][kPanel][4].
inline constexpr std::int64_t kPart = 256;
struct PanelPart {
  alignas(64) std::byte codes[kPart * kPanel];
  alignas(64) float scale[kPart / 16][kPanel];
  alignas(64) float min[kPart / 16][kPanel];
};

template <DType type>
inline void unpack(const std::byte* panel, std::int64_t first, std::int64_t count,
                   PanelPart& part) {
  using U = Unit<type>;
  constexpr std::int64_t kShared = scale_inputs(type);
  for (std::int64_t i = 0; i < count; i += 32) {
    const std::byte* unit = panel + (first + i) / kFormat<type>.inputs * U::kBytes;
    const int g = static_cast<int>((first + i) % kFormat<type>.inputs / 32);
    const std::byte* group = unit + U::kCodes + g * U::kGroup;
    for (int v = 0; v < kPanelVectors; ++v) {
      for (int h = 0; h < 32 / kShared; ++h) {
        const Scale scales = scale_of<type>(unit, g, h, v);
        store(part.scale[i / kShared + h] + v * kLanes, scales.scale);
        store(part.min[i / kShared + h] + v * kLanes, scales.min);
      }
      KRAIT_UNROLL
      for (int n = 0; n < 8; ++n) {
        codes<type>(group, n, v)
            .store_aligned(reinterpret_cast<std::uint32_t*>(part.codes + i * kPanel +
                                                            (n * kPanelVectors + v) * 4 * kLanes));
      }
    }
  }
}

/// Sums of a block's tokens and panels between its parts.
struct Sums {
  alignas(64) float of[kBlockTokens][kBlockPanels][kPanel];
};

/// Tokens t to t + tokens, whose sums stand at `row`, times a part of panels p to p + panels.
template <std::int64_t shared, int tokens, int panels>
inline void int8_tile(const RoundedArgs& args, std::int64_t t, std::int64_t row,
                      const PanelPart* parts, int p, std::int64_t first, std::int64_t count,
                      Sums& sums) {
  constexpr int kVectors = panels * kPanelVectors;
  const auto sum_at = [&](int j, int v) {
    return sums.of[row + j][p + v / kPanelVectors] + v % kPanelVectors * kLanes;
  };
  const std::int8_t* q[tokens];
  const float *d[tokens], *q_sums[tokens];
  Batch totals[tokens][kVectors];
  KRAIT_UNROLL
  for (int j = 0; j < tokens; ++j) {
    const Int8Row rounded(args, t + j);
    q[j] = rounded.q + first;
    d[j] = rounded.d + first / shared;
    q_sums[j] = rounded.sums + first / shared;
    KRAIT_UNROLL
    for (int v = 0; v < kVectors; ++v) totals[j][v] = load(sum_at(j, v));
  }
  for (std::int64_t s = 0; s < count / shared; ++s) {
    Ints dots[tokens][kVectors];
    KRAIT_UNROLL
    for (int j = 0; j < tokens; ++j) {
      KRAIT_UNROLL
      for (int v = 0; v < kVectors; ++v) dots[j][v] = Ints(0);
    }
    KRAIT_UNROLL
    for (int n = 0; n < shared / 4; ++n) {
      Words codes[kVectors];
      KRAIT_UNROLL
      for (int v = 0; v < kVectors; ++v) {
        codes[v] = load_words(parts[p + v / kPanelVectors].codes + (s * shared + 4 * n) * kPanel +
                              v % kPanelVectors * 4 * kLanes);
      }
      KRAIT_UNROLL
      for (int j = 0; j < tokens; ++j) {
        std::int32_t four;
        __builtin_memcpy(&four, q[j] + s * shared + 4 * n, sizeof four);
        KRAIT_UNROLL
        for (int v = 0; v < kVectors; ++v) dots[j][v] = dot(dots[j][v], codes[v], Ints(four));
      }
    }
    KRAIT_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      const PanelPart& part = parts[p + v / kPanelVectors];
      const Batch scale = load(part.scale[s] + v % kPanelVectors * kLanes);
      const Batch min = load(part.min[s] + v % kPanelVectors * kLanes);
      KRAIT_UNROLL
      for (int j = 0; j < tokens; ++j) {
        const Batch inner = fma(scale, xsimd::to_float(dots[j][v]), min * Batch(q_sums[j][s]));
        totals[j][v] = fma(Batch(d[j][s]), inner, totals[j][v]);
      }
    }
  }
  KRAIT_UNROLL
  for (int j = 0; j < tokens; ++j) {
    KRAIT_UNROLL
    for (int v = 0; v < kVectors; ++v) store(sum_at(j, v), totals[j][v]);
  }
}

/// Both integer and float sums of a tile fit the registers.
#if defined(__AVX512F__)
inline constexpr int kInt8Tokens = 6, kInt8Sums = 12;
#else
inline constexpr int kInt8Tokens = 2, kInt8Sums = 4;
#endif

template <std::int64_t shared, int tokens>
inline void int8_tiles(const RoundedArgs& args, std::int64_t t, std::int64_t row,
                       const PanelPart* parts, int panels, std::int64_t first, std::int64_t count,
                       Sums& sums) {
  constexpr int kFit = kInt8Sums / kPanelVectors / tokens;
  constexpr int kPanels = kFit < kBlockPanels ? kFit : static_cast<int>(kBlockPanels);
  int p = 0;
  for (; p + kPanels <= panels; p += kPanels) {
    int8_tile<shared, tokens, kPanels>(args, t, row, parts, p, first, count, sums);
  }
  for (; p < panels; ++p) {
    int8_tile<shared, tokens, 1>(args, t, row, parts, p, first, count, sums);
  }
}

template <DType type>
inline void multiply_int8(const RoundedArgs& args, std::int64_t t0, std::int64_t t1,
                          std::int64_t p0, std::int64_t p1) {
  constexpr std::int64_t kShared = scale_inputs(type);
  const LinearArgs& linear = args.linear;
  const int panels = static_cast<int>(p1 - p0);
  PanelPart parts[kBlockPanels];
  Sums sums;
  for (std::int64_t row = 0; row < t1 - t0; ++row) {
    for (int p = 0; p < panels; ++p) {
      for (int v = 0; v < kPanelVectors; ++v) {
        store(sums.of[row][p] + v * kLanes, bias_at(linear, (p0 + p) * kPanel + v * kLanes));
      }
    }
  }
  for (std::int64_t first = 0; first < linear.inputs; first += kPart) {
    const std::int64_t count = min(kPart, linear.inputs - first);
    for (int p = 0; p < panels; ++p) {
      unpack<type>(linear.w + (p0 + p) * linear.panel_bytes, first, count, parts[p]);
      prefetch_next(linear, p0 + p, p0, p1, first, kPart);
    }
    std::int64_t t = t0;
    for (; t + kInt8Tokens <= t1; t += kInt8Tokens) {
      int8_tiles<kShared, kInt8Tokens>(args, t, t - t0, parts, panels, first, count, sums);
    }
    for (; t < t1; ++t) {
      int8_tiles<kShared, 1>(args, t, t - t0, parts, panels, first, count, sums);
    }
  }
  for (std::int64_t row = 0; row < t1 - t0; ++row) {
    for (std::int64_t at = 0; at < panels * kPanel; at += kLanes) {
      store_outputs(linear, t0 + row, p0 * kPanel + at,
                    load(sums.of[row][at / kPanel] + at % kPanel));
    }
  }
}

inline void linear_int8(const RoundedArgs& args, std::int64_t t0, std::int64_t t1, std::int64_t p0,
                        std::int64_t p1) {
  switch (args.linear.weight) {
#define KRAIT_MULTIPLY(type) \
  case DType::type:          \
    return multiply_int8<DType::type>(args, t0, t1, p0, p1);
    KRAIT_MULTIPLY(q8_0)
    KRAIT_MULTIPLY(q4_0)
    KRAIT_MULTIPLY(q4_1)
    KRAIT_MULTIPLY(q5_0)
    KRAIT_MULTIPLY(q5_1)
    KRAIT_MULTIPLY(q4_k)
    KRAIT_MULTIPLY(q5_k)
    KRAIT_MULTIPLY(q6_k)
#undef KRAIT_MULTIPLY
    default:
      return;  // the kernel takes block types only
  }
}

}  // namespace krait::cpu::KRAIT_ISA
