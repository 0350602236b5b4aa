// Products of bfloat16 on tensor cores, and how a float32 enters them: as the sum of three bfloat16
// terms, so that nothing of it is lost.
//
// A lane holds eight neighbours of a row of 32, of both operands alike: which columns of the
// instruction they are does not matter, since it adds all of them up. So rows are read in packs of
// sixteen bytes, by four lanes together.
#pragma once

#include "backends/cuda/numeric.cuh"

namespace krait::cuda {

/// How many bfloat16 terms make up an X.
template <class X>
constexpr int kTerms = 1;
template <>
constexpr int kTerms<float> = 3;

/// Calls body(X{}) with the C++ type of inputs that enter as terms: float32, or bfloat16.
template <class Body>
void with_term_type(DType type, Body&& body) {
  if (type == DType::f32)
    body(float{});
  else
    body(__nv_bfloat16{});
}

/// Takes the leading eight bits of the number's significand, as a float's bits, and leaves the
/// rest. Cut off, not rounded, so that the largest numbers stay finite; what is not finite is one
/// term.
__device__ inline std::uint32_t take_term(float& x) {
  const std::uint32_t bits = __float_as_uint(x), term = bits & 0xffff0000u;
  const bool finite = isfinite(x);
  x = finite ? x - __uint_as_float(term) : 0.0f;
  // NaN may have nothing but low bits; one of the high ones keeps it from becoming infinity.
  return finite || term == bits ? term : term | 0x00400000u;
}

/// The same of a number that is known to be finite, as every rest is.
__device__ inline std::uint32_t take_finite_term(float& x) {
  const std::uint32_t term = __float_as_uint(x) & 0xffff0000u;
  x -= __uint_as_float(term);
  return term;
}

/// The larger number; NaN if one is.
__device__ inline float larger(float a, float b) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  float c;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(c) : "f"(a), "f"(b));
  return c;
#else
  return b > a || isnan(b) ? b : a;
#endif
}

/// The terms of `count` neighbours of a row, two in a word. Where one is not finite, it alone
/// decides about a sum over all of them: the others are one term, cut off.
template <int count>
__device__ inline void take_terms(float (&x)[count], std::uint32_t (&term)[3][count / 2]) {
  float largest = 0;
#pragma unroll
  for (int i = 0; i < count; ++i) largest = larger(largest, fabsf(x[i]));
  const bool finite = largest < INFINITY;
  // Cut off, NaN may have become infinity: then it is a term again.
  const float rest = isnan(largest) ? largest : 0.0f;
#pragma unroll
  for (int k = 0; k < 3; ++k) {
#pragma unroll
    for (int i = 0; i < count; i += 2) {
      const std::uint32_t even = take_finite_term(x[i]), odd = take_finite_term(x[i + 1]);
      term[k][i / 2] = __byte_perm(even, odd, 0x7632);  // their upper halves
    }
    if (k > 0) continue;
#pragma unroll
    for (int i = 0; i < count; ++i) x[i] = finite ? x[i] : rest;
  }
}

/// Eight neighbours of a row, as they come from memory.
template <class X>
struct Eight;
template <>
struct Eight<__nv_bfloat16> {
  uint4 words;
};
template <>
struct Eight<float> {
  float4 low, high;
};

/// Elements i to i+7 of a row of `width`; zeros beyond its end. `neat`: i and the width are
/// multiples of eight, and the row begins at a multiple of sixteen bytes. Code for other rows,
/// beside that for these, would be jumped over, each time to code that is not there yet.
template <bool neat>
__device__ inline Eight<__nv_bfloat16> load_eight(const __nv_bfloat16* row, int i, int width) {
  if constexpr (neat) {
    return {i < width ? *reinterpret_cast<const uint4*>(row + i) : uint4{}};
  } else {
    std::uint32_t word[4];
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const auto bits = [&](int at) -> std::uint32_t {
        return at < width ? __bfloat16_as_ushort(row[at]) : 0;
      };
      word[k] = bits(i + 2 * k) | bits(i + 2 * k + 1) << 16;
    }
    return {{word[0], word[1], word[2], word[3]}};
  }
}
template <bool neat>
__device__ inline Eight<float> load_eight(const float* row, int i, int width) {
  if constexpr (neat) {
    const auto* const quads = reinterpret_cast<const float4*>(row + i);
    return {i < width ? quads[0] : float4{}, i < width ? quads[1] : float4{}};
  } else {
    float x[8];
#pragma unroll
    for (int k = 0; k < 8; ++k) x[k] = i + k < width ? row[i + k] : 0.0f;
    return {{x[0], x[1], x[2], x[3]}, {x[4], x[5], x[6], x[7]}};
  }
}

/// Their bfloat16 terms, whose sum each element is.
__device__ inline void take_terms(const Eight<__nv_bfloat16>& x, uint4 (&term)[1]) {
  term[0] = x.words;
}
__device__ inline void take_terms(const Eight<float>& x, uint4 (&term)[3]) {
  float value[8] = {x.low.x, x.low.y, x.low.z, x.low.w, x.high.x, x.high.y, x.high.z, x.high.w};
  std::uint32_t word[3][4];
  take_terms(value, word);
#pragma unroll
  for (int k = 0; k < 3; ++k) term[k] = {word[k][0], word[k][1], word[k][2], word[k][3]};
}

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800

/// sum += a bᵀ, sixteen rows of a by eight of b.
__device__ inline void multiply_add(float (&sum)[4], std::uint32_t a0, std::uint32_t a1,
                                    std::uint32_t a2, std::uint32_t a3, std::uint32_t b0,
                                    std::uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

#endif

}  // namespace krait::cuda
