// Kernels that look for positions or rows.
#pragma once

#include "backends/cpu/widen.hpp"

namespace krait::cpu::KRAIT_ISA {

inline std::int64_t next_above(const float* x, std::int64_t from, std::int64_t count,
                               float threshold) {
  const Batch bound(threshold);
  std::int64_t i = from;
  for (; i + 4 * kLanes <= count; i += 4 * kLanes) {
    const auto above = ((load(x + i) > bound) | (load(x + i + kLanes) > bound)) |
                       ((load(x + i + 2 * kLanes) > bound) | (load(x + i + 3 * kLanes) > bound));
    if (xsimd::any(above)) break;
  }
  while (i < count && !(x[i] > threshold)) ++i;
  return i;
}

inline void panel_row(const LinearArgs& args, std::int64_t o, float* y) {
  constexpr std::int64_t kPart = 32;
  alignas(64) float wide[kPart * kPanel];
  for (std::int64_t first = 0; first < args.inputs; first += kPart) {
    const std::int64_t count = min(kPart, args.inputs - first);
    widen(args, o / kPanel, first, count, wide);
    for (std::int64_t i = 0; i < count; ++i) y[first + i] = wide[i * kPanel + o % kPanel];
  }
}

}  // namespace krait::cpu::KRAIT_ISA
