// rms_norm of one token: y = v / √(mean v² + eps) · weight with v = x + residual, gated by
// silu(gate) before or after.
#pragma once

#include "backends/cpu/math.hpp"

namespace krait::cpu::KRAIT_ISA {

inline void rms_norm(const RmsNormArgs& args, std::int64_t token) {
  const bool gate_first = args.gate.data && !args.norm_before_gate;
  const bool gate_last = args.gate.data && args.norm_before_gate;
  for (std::int64_t group = 0; group < args.groups; ++group) {
    const std::int64_t first = group * args.width;
    const float* x = args.x.at(token) + first;
    const float* residual = args.residual.data ? args.residual.at(token) + first : nullptr;
    const float* gate = args.gate.data ? args.gate.at(token) + first : nullptr;
    float* sum = residual ? args.sum.at(token) + first : nullptr;
    float* y = args.y.at(token) + first;

    // v goes to y meanwhile; the row stays in the first-level cache.
    Batch squares[4] = {Batch(0.0f), Batch(0.0f), Batch(0.0f), Batch(0.0f)};
    for (std::int64_t i = 0, k = 0; i < args.width; i += kLanes, ++k) {
      const std::int64_t left = args.width - i;
      Batch v = load_upto(x + i, left);
      if (residual) {
        v = v + load_upto(residual + i, left);
        store_upto(sum + i, v, left);
      }
      if (gate_first) v = v * silu(load_upto(gate + i, left));
      store_upto(y + i, v, left);
      squares[k % 4] = fma(v, v, squares[k % 4]);
    }
    const float total = xsimd::reduce_add((squares[0] + squares[1]) + (squares[2] + squares[3]));
    const Batch mean(total / static_cast<float>(args.width) + args.eps);
    const Batch factor = Batch(1.0f) / xsimd::sqrt(mean);
    for (std::int64_t i = 0; i < args.width; i += kLanes) {
      const std::int64_t left = args.width - i;
      Batch v = load_upto(y + i, left) * factor;
      if (args.weight) v = v * load_upto(args.weight + first + i, left);
      if (gate_last) v = v * silu(load_upto(gate + i, left));
      store_upto(y + i, v, left);
    }
  }
}

}  // namespace krait::cpu::KRAIT_ISA
