// Vectors of float32 for the instruction set that this file is compiled for: what xsimd has, plus
// the few operations that it has not.
//
// Every *.hpp of this folder is included by the isa_*.cpp files only, once per instruction set,
// and puts everything into the namespace KRAIT_ISA of that file.
#pragma once

#include <cstdint>
#include <xsimd/xsimd.hpp>

#include "backends/cpu/isa.h"
#include "runtime/core/half.h"

#if defined(__clang__)
#define KRAIT_UNROLL _Pragma("clang loop unroll(full)")
#else
#define KRAIT_UNROLL _Pragma("GCC unroll 64")
#endif
#define KRAIT_INLINE inline __attribute__((always_inline))

namespace krait::cpu::KRAIT_ISA {

using Batch = xsimd::batch<float, Arch>;
using Ints = xsimd::batch<std::int32_t, Arch>;
inline constexpr int kLanes = static_cast<int>(Batch::size);
static_assert(kPanel % kLanes == 0);
inline constexpr int kPanelVectors = static_cast<int>(kPanel) / kLanes;

KRAIT_INLINE std::int64_t min(std::int64_t a, std::int64_t b) {
  return a < b ? a : b;
}

KRAIT_INLINE Batch load(const float* p) {
  return Batch::load_unaligned(p);
}
KRAIT_INLINE void store(float* p, Batch x) {
  x.store_unaligned(p);
}

/// The first `count` (1 to kLanes) elements, then zeros; reads nothing beyond them.
KRAIT_INLINE Batch load_part(const float* p, std::int64_t count) {
#if defined(__AVX512F__)
  return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << count) - 1), p);
#else
  alignas(64) float lanes[kLanes] = {};
  for (std::int64_t i = 0; i < count; ++i) lanes[i] = p[i];
  return Batch::load_aligned(lanes);
#endif
}

/// Writes the first `count` (1 to kLanes) elements and nothing beyond them.
KRAIT_INLINE void store_part(float* p, Batch x, std::int64_t count) {
#if defined(__AVX512F__)
  _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << count) - 1), x);
#else
  alignas(64) float lanes[kLanes];
  x.store_aligned(lanes);
  for (std::int64_t i = 0; i < count; ++i) p[i] = lanes[i];
#endif
}

/// As many of `left` elements as a vector holds.
KRAIT_INLINE Batch load_upto(const float* p, std::int64_t left) {
  return left >= kLanes ? load(p) : load_part(p, left);
}
KRAIT_INLINE void store_upto(float* p, Batch x, std::int64_t left) {
  left >= kLanes ? store(p, x) : store_part(p, x, left);
}

/// Zeros in the lanes from `count` on, whatever was there, NaN too.
KRAIT_INLINE Batch keep_first(Batch x, std::int64_t count) {
  alignas(64) float lanes[kLanes];
  for (int i = 0; i < kLanes; ++i) lanes[i] = i < count ? 1.0f : 0.0f;
  return xsimd::select(Batch::load_aligned(lanes) > Batch(0.0f), x, Batch(0.0f));
}

/// p[0], p[stride], …: one element per lane, the last of `count` repeated.
KRAIT_INLINE Batch load_strided(const float* p, std::int64_t stride, std::int64_t count) {
  alignas(64) float lanes[kLanes];
  for (std::int64_t i = 0; i < kLanes; ++i) lanes[i] = p[min(i, count - 1) * stride];
  return Batch::load_aligned(lanes);
}
KRAIT_INLINE void store_strided(float* p, std::int64_t stride, Batch x, std::int64_t count) {
  alignas(64) float lanes[kLanes];
  x.store_aligned(lanes);
  for (std::int64_t i = 0; i < min(count, kLanes); ++i) p[i * stride] = lanes[i];
}

/// columns[k] = element k of each of kLanes dense rows of n; compilers make shuffles of it.
template <int n>
KRAIT_INLINE void load_columns(const float* p, Batch* columns) {
  alignas(64) float lanes[n][kLanes];
  for (int i = 0; i < kLanes; ++i) {
    for (int k = 0; k < n; ++k) lanes[k][i] = p[i * n + k];
  }
  for (int k = 0; k < n; ++k) columns[k] = Batch::load_aligned(lanes[k]);
}
template <int n>
KRAIT_INLINE void store_columns(float* p, const Batch* columns) {
  alignas(64) float lanes[n][kLanes];
  for (int k = 0; k < n; ++k) columns[k].store_aligned(lanes[k]);
  for (int i = 0; i < kLanes; ++i) {
    for (int k = 0; k < n; ++k) p[i * n + k] = lanes[k][i];
  }
}

KRAIT_INLINE Batch load(const bf16* p) {
#if defined(__AVX512F__)
  const __m512i wide =
      _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
#elif defined(__AVX2__)
  const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
#elif defined(__SSE4_2__)
  const __m128i wide = _mm_cvtepu16_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
  return _mm_castsi128_ps(_mm_slli_epi32(wide, 16));
#else
  return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(&p->bits), 16));
#endif
}

KRAIT_INLINE Batch load(const f16* p) {
#if defined(__AVX512F__)
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
#elif defined(__AVX2__)
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
#elif defined(__SSE4_2__)
  // The magnitude moved to float32's place is 2^-112 of the value, subnormals included; a product
  // puts that right, exactly. Infinity and NaN get the exponent that they need.
  const __m128i half = _mm_cvtepu16_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
  const __m128i magnitude = _mm_slli_epi32(_mm_and_si128(half, _mm_set1_epi32(0x7fff)), 13);
  const __m128i sign = _mm_slli_epi32(_mm_and_si128(half, _mm_set1_epi32(0x8000)), 16);
  const __m128i special = _mm_and_si128(_mm_cmpgt_epi32(magnitude, _mm_set1_epi32(0x0f7fffff)),
                                        _mm_set1_epi32(0x7f800000));
  const __m128 scaled = _mm_mul_ps(_mm_castsi128_ps(magnitude), _mm_set1_ps(0x1p112f));
  return _mm_or_ps(scaled, _mm_castsi128_ps(_mm_or_si128(sign, special)));
#else
  return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(&p->bits)));
#endif
}

/// Rounds to nearest even; overflow goes to infinity, NaN stays NaN.
KRAIT_INLINE void store(f16* p, Batch x) {
#if defined(__AVX512F__)
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                      _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#elif defined(__AVX2__)
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                   _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#elif defined(__SSE4_2__)
  // As krait::to_f16, in lanes: add the rounding below the lowest kept bit, then shift; where the
  // result is subnormal the adder of float rounds at 2^-24.
  const __m128i bits = _mm_castps_si128(x);
  const __m128i magnitude = _mm_and_si128(bits, _mm_set1_epi32(0x7fffffff));
  const __m128i odd = _mm_and_si128(_mm_srli_epi32(magnitude, 13), _mm_set1_epi32(1));
  const __m128i rounded = _mm_add_epi32(_mm_add_epi32(magnitude, _mm_set1_epi32(0xfff)), odd);
  const __m128i normal = _mm_srli_epi32(_mm_sub_epi32(rounded, _mm_set1_epi32(0x38000000)), 13);
  const __m128i small =
      _mm_sub_epi32(_mm_castps_si128(_mm_add_ps(_mm_castsi128_ps(magnitude), _mm_set1_ps(0.5f))),
                    _mm_set1_epi32(0x3f000000));
  const __m128i is_small = _mm_cmplt_epi32(magnitude, _mm_set1_epi32(0x38800000));
  const __m128i is_large = _mm_cmpgt_epi32(magnitude, _mm_set1_epi32(0x477fefff));
  const __m128i is_nan = _mm_cmpgt_epi32(magnitude, _mm_set1_epi32(0x7f800000));
  __m128i half = _mm_blendv_epi8(normal, small, is_small);
  half = _mm_blendv_epi8(half, _mm_set1_epi32(0x7c00), is_large);
  half = _mm_blendv_epi8(half, _mm_set1_epi32(0x7e00), is_nan);
  half = _mm_or_si128(half, _mm_srli_epi32(_mm_andnot_si128(_mm_set1_epi32(0x7fffffff), bits), 16));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packus_epi32(half, half));
#else
  vst1_u16(&p->bits, vreinterpret_u16_f16(vcvt_f16_f32(x)));
#endif
}

KRAIT_INLINE void store(bf16* p, Batch x) {
  using Words = xsimd::batch<std::uint32_t, Arch>;
  const Words bits = xsimd::bitwise_cast<std::uint32_t>(x);
  const Words rounded = (bits + Words(0x7fffu) + ((bits >> 16) & Words(1u))) >> 16;
  const Words quiet = (bits >> 16) | Words(0x40u);
  const Words nan = (bits & Words(0x7fffffffu));
  const Words result = xsimd::select(nan > Words(0x7f800000u), quiet, rounded);
#if defined(__AVX512F__)
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(result));
#else
  alignas(64) std::uint32_t words[kLanes];
  result.store_aligned(words);
  for (int i = 0; i < kLanes; ++i) p[i].bits = static_cast<std::uint16_t>(words[i]);
#endif
}

/// Lane j of row i becomes lane i of row j.
KRAIT_INLINE void transpose(Batch* rows) {
#if defined(__AVX512F__)
  __m512 pairs[16], quads[16];
  KRAIT_UNROLL
  for (int i = 0; i < 16; i += 2) {
    pairs[i] = _mm512_unpacklo_ps(rows[i], rows[i + 1]);
    pairs[i + 1] = _mm512_unpackhi_ps(rows[i], rows[i + 1]);
  }
  KRAIT_UNROLL
  for (int i = 0; i < 16; i += 4) {
    quads[i] = _mm512_shuffle_ps(pairs[i], pairs[i + 2], 0x44);
    quads[i + 1] = _mm512_shuffle_ps(pairs[i], pairs[i + 2], 0xee);
    quads[i + 2] = _mm512_shuffle_ps(pairs[i + 1], pairs[i + 3], 0x44);
    quads[i + 3] = _mm512_shuffle_ps(pairs[i + 1], pairs[i + 3], 0xee);
  }
  // quads[4i + k] holds column 4j + k of the rows 4i to 4i + 3 in its quarter j.
  KRAIT_UNROLL
  for (int k = 0; k < 4; ++k) {
    const __m512 even_top = _mm512_shuffle_f32x4(quads[k], quads[4 + k], 0x88);
    const __m512 odd_top = _mm512_shuffle_f32x4(quads[k], quads[4 + k], 0xdd);
    const __m512 even_bottom = _mm512_shuffle_f32x4(quads[8 + k], quads[12 + k], 0x88);
    const __m512 odd_bottom = _mm512_shuffle_f32x4(quads[8 + k], quads[12 + k], 0xdd);
    rows[k] = _mm512_shuffle_f32x4(even_top, even_bottom, 0x88);
    rows[4 + k] = _mm512_shuffle_f32x4(odd_top, odd_bottom, 0x88);
    rows[8 + k] = _mm512_shuffle_f32x4(even_top, even_bottom, 0xdd);
    rows[12 + k] = _mm512_shuffle_f32x4(odd_top, odd_bottom, 0xdd);
  }
#else
  xsimd::transpose(rows, rows + kLanes);
#endif
}

/// The sum of each of kLanes vectors, in its lane.
KRAIT_INLINE Batch sums_of(const Batch* rows) {
#if defined(__AVX512F__)
  // Every step halves how many elements of a row are left and doubles how many rows share a vector.
  __m512 quad[4];
  for (int i = 0; i < 4; ++i) {
    const __m512 a = rows[4 * i], b = rows[4 * i + 1], c = rows[4 * i + 2], d = rows[4 * i + 3];
    const __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    const __m512 cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
    quad[i] = _mm512_add_ps(_mm512_shuffle_ps(ab, cd, 0x44), _mm512_shuffle_ps(ab, cd, 0xee));
  }
  const __m512 low = _mm512_add_ps(_mm512_shuffle_f32x4(quad[0], quad[1], 0x88),
                                   _mm512_shuffle_f32x4(quad[0], quad[1], 0xdd));
  const __m512 high = _mm512_add_ps(_mm512_shuffle_f32x4(quad[2], quad[3], 0x88),
                                    _mm512_shuffle_f32x4(quad[2], quad[3], 0xdd));
  return _mm512_add_ps(_mm512_shuffle_f32x4(low, high, 0x88),
                       _mm512_shuffle_f32x4(low, high, 0xdd));
#else
  return xsimd::haddp(rows);  // whose AVX-512 form (xsimd 13.2) returns the sums in another order
#endif
}

/// a·b + c, in one rounding where the instruction set has it.
KRAIT_INLINE Batch fma(Batch a, Batch b, Batch c) {
  return xsimd::fma(a, b, c);
}
/// The larger and the smaller; a NaN in x stays, which on x86 hangs on the order of the operands.
KRAIT_INLINE Batch at_least(Batch x, float low) {
  return xsimd::max(Batch(low), x);
}
KRAIT_INLINE Batch at_most(Batch x, float high) {
  return xsimd::min(Batch(high), x);
}

}  // namespace krait::cpu::KRAIT_ISA
