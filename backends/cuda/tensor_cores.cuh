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

/// The terms of `count` numbers, two in a word.
template <int count>
__device__ inline void take_terms(float (&x)[count], std::uint32_t (&term)[3][count / 2]) {
  const auto take = [&](int k, auto&& take_one) {
#pragma unroll
    for (int i = 0; i < count; i += 2) {
      const std::uint32_t even = take_one(x[i]), odd = take_one(x[i + 1]);
      term[k][i / 2] = __byte_perm(even, odd, 0x7632);  // their upper halves
    }
  };
  std::uint32_t largest = 0;
#pragma unroll
  for (int i = 0; i < count; ++i) largest = max(largest, __float_as_uint(x[i]) & 0x7fffffffu);
  if (largest < 0x7f800000u)
    take(0, take_finite_term);
  else
    take(0, take_term);
  take(1, take_finite_term);
  take(2, take_finite_term);
}

/// Elements i to i+7 of a row of `width`; zeros beyond its end. `aligned`: the row begins at a
/// multiple of sixteen bytes, and i is a multiple of eight.
__device__ inline uint4 load_eight(const __nv_bfloat16* row, int i, int width, bool aligned) {
  if (aligned && i + 8 <= width) return *reinterpret_cast<const uint4*>(row + i);
  std::uint32_t word[4];
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    const auto bits = [&](int at) -> std::uint32_t {
      return at < width ? __bfloat16_as_ushort(row[at]) : 0;
    };
    word[k] = bits(i + 2 * k) | bits(i + 2 * k + 1) << 16;
  }
  return {word[0], word[1], word[2], word[3]};
}

/// Elements i to i+7 of a row as bfloat16 terms, whose sum each element is.
__device__ inline void load_terms(const __nv_bfloat16* row, int i, int width, bool aligned,
                                  uint4 (&term)[1]) {
  term[0] = load_eight(row, i, width, aligned);
}
__device__ inline void load_terms(const float* row, int i, int width, bool aligned,
                                  uint4 (&term)[3]) {
  float value[8];
  if (aligned && i + 8 <= width) {
    const float4 low = *reinterpret_cast<const float4*>(row + i);
    const float4 high = *reinterpret_cast<const float4*>(row + i + 4);
    value[0] = low.x, value[1] = low.y, value[2] = low.z, value[3] = low.w;
    value[4] = high.x, value[5] = high.y, value[6] = high.z, value[7] = high.w;
  } else {
#pragma unroll
    for (int k = 0; k < 8; ++k) value[k] = i + k < width ? row[i + k] : 0.0f;
  }
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
