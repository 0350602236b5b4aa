// exp, silu and softplus in vectors of float32. The coefficients are minimax for the relative error
// of the result (Remez exchange in 60 digits, then rounded to float32); u = 2^-24.
#pragma once

#include "backends/cpu/simd.hpp"

namespace krait::cpu::KRAIT_ISA {

/// 2^n for n in [-127, 128], where -127 gives 0 and 128 infinity.
KRAIT_INLINE Batch power_of_two(Ints n) {
  return xsimd::bitwise_cast<float>((n + Ints(127)) << 23);
}

/// p · 2^n for integral n in [-150, 129], rounded once, with overflow and gradual underflow.
KRAIT_INLINE Batch scale(Batch p, Batch n) {
#if defined(__AVX512F__)
  return _mm512_scalef_ps(p, n);
#else
  // Two factors, since 2^n alone need not be a float.
  const Ints whole = xsimd::to_int(n);
  const Ints half = whole >> 1;
  return p * power_of_two(half) * power_of_two(whole - half);
#endif
}

/// Adding 1.5·2^23 rounds to an integer, which then stands in the low bits of the sum; here with
/// the bias of the exponent, so that shifting those bits up makes the power of two.
inline constexpr float kRoundingBias = 12582912.0f + 127.0f;
KRAIT_INLINE Batch power_of_biased(Batch biased) {
  return xsimd::bitwise_cast<float>(xsimd::bitwise_cast<std::int32_t>(biased) << 23);
}

/// 2^t for the transitions exp(dt·A) of the scans: the shortest way that keeps what matters there.
/// t = n + f with |f| ≤ 1/2; 2^f ≈ 1 + f·q(f), degree 6, error 0.04 u. The constant 1 is pinned and
/// the slope exact to 1e-7, because what a state forgets in a step is 1 − 2^t: an error that does
/// not vanish with t would be magnified by the length of the memory. 2^-∞ = 0, 2^∞ = ∞, NaN stays.
/// Without AVX-512 results below 2^-126.5 are zero and those from 2^127.5 on infinite.
KRAIT_INLINE Batch exp2(Batch t) {
#if defined(__AVX512F__)
  const Batch f = _mm512_reduce_ps(t, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);  // 0 for ±∞
  const Batch n = t - f;
#else
  const Batch magic(kRoundingBias);
  t = at_most(at_least(t, -127.0f), 128.0f);
  const Batch biased = t + magic;
  const Batch f = t - (biased - magic);
#endif
  Batch p(0.000155948743f);
  p = fma(p, f, Batch(0.00134067191f));
  p = fma(p, f, Batch(0.00961769186f));
  p = fma(p, f, Batch(0.0555031039f));
  p = fma(p, f, Batch(0.240226522f));
  p = fma(p, f, Batch(0.693147242f));
  p = fma(p, f, Batch(1.0f));
#if defined(__AVX512F__)
  return _mm512_scalef_ps(p, n);
#else
  return p * power_of_biased(biased);
#endif
}

inline constexpr float kLog2e = 1.44269504f;

/// e^r for |r| ≤ ln(2)/2: 1 + r + r²·q(r), degree 6, 0.42 u.
KRAIT_INLINE Batch exp_near_zero(Batch r) {
  Batch q(0.00133440667f);
  q = fma(q, r, Batch(0.00835927855f));
  q = fma(q, r, Batch(0.0416737273f));
  q = fma(q, r, Batch(0.166666001f));
  q = fma(q, r, Batch(0.499999851f));
  return fma(q, r * r, r) + Batch(1.0f);
}

/// x − n·ln 2 for integral n, with ln 2 in two parts; the first has 15 bits: n times it is exact.
KRAIT_INLINE Batch reduce(Batch x, Batch n) {
  return fma(n, Batch(-1.42860677e-6f), fma(n, Batch(-0.693145752f), x));
}

/// e^x over the whole range, to about 1 unit in the last place.
KRAIT_INLINE Batch exp(Batch x) {
  x = at_most(at_least(x, -104.0f), 89.0f);  // beyond: 0 and ∞
  const Batch n = xsimd::nearbyint(x * Batch(kLog2e));
  return scale(exp_near_zero(reduce(x, n)), n);
}

/// The same where results below 2^-126 may be 0 and those above 2^127.5 infinite, as in 1 + e^x.
KRAIT_INLINE Batch exp_normal(Batch x) {
#if defined(__AVX512F__)
  return exp(x);
#else
  const Batch magic(kRoundingBias);
  x = at_most(at_least(x, -88.0f), 89.0f);
  const Batch biased = fma(x, Batch(kLog2e), magic);
  return exp_near_zero(reduce(x, biased - magic)) * power_of_biased(biased);
#endif
}

/// x / (1 + e⁻ˣ); the largest finite number in place of −∞ makes the limit 0 there.
KRAIT_INLINE Batch silu(Batch x) {
  return at_least(x, -3.402823466e38f) / (Batch(1.0f) + exp_normal(-x));
}

/// log(1 + eˣ) = max(x, 0) + log1p(w), w = e^−|x|; log1p(w) = 2·atanh(s), s = w/(2 + w) ≤ 1/3, as
/// 2s + s³·q(s²), degree 3 in s², 0.25 u. Above 20 the second term is less than half a unit of the
/// first, so that the result is x, as the op demands.
KRAIT_INLINE Batch softplus(Batch x) {
  const Batch w = exp_normal(-xsimd::abs(x));
  const Batch s = w / (w + Batch(2.0f));
  const Batch v = s * s;
  Batch q(0.268710315f);
  q = fma(q, v, Batch(0.282333761f));
  q = fma(q, v, Batch(0.400076956f));
  q = fma(q, v, Batch(0.666666389f));
  return at_least(x, 0.0f) + fma(s * v, q, s + s);
}

}  // namespace krait::cpu::KRAIT_ISA
