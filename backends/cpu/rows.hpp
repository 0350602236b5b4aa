// Kernels that look for positions or rows.
#pragma once

#include "backends/cpu/simd.hpp"

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

template <class Weight>
inline void unpack_row(const void* panels, std::int64_t inputs, std::int64_t o, float* y) {
  const Weight* w = static_cast<const Weight*>(panels) + o / kPanel * inputs * kPanel + o % kPanel;
  Weight lanes[kLanes];
  for (std::int64_t i = 0; i < inputs; i += kLanes) {
    const std::int64_t left = min(inputs - i, kLanes);
    for (std::int64_t j = 0; j < kLanes; ++j) lanes[j] = w[(i + min(j, left - 1)) * kPanel];
    store_upto(y + i, load(lanes), left);
  }
}

inline void panel_row(DType weight, const void* panels, std::int64_t inputs, std::int64_t o,
                      float* y) {
  if (weight == DType::f16) return unpack_row<f16>(panels, inputs, o, y);
  if (weight == DType::bf16) return unpack_row<bf16>(panels, inputs, o, y);
  unpack_row<float>(panels, inputs, o, y);
}

}  // namespace krait::cpu::KRAIT_ISA
