// The scalar functions of the vocabulary, in float64: the one place that defines them.
#pragma once

#include <cmath>
#include <limits>

namespace krait {

/// silu(x) = x / (1 + e⁻ˣ). At −∞ the limit 0, not −∞/∞.
inline double silu64(double x) {
  if (x == -std::numeric_limits<double>::infinity()) return 0;
  return x / (1 + std::exp(-x));
}

/// softplus(x) = log(1 + eˣ); x itself above 20, as PyTorch and the official kernels have it.
inline double softplus64(double x) {
  return x > 20 ? x : std::log1p(std::exp(x));
}

}  // namespace krait
