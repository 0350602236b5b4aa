// Where the sums of a matrix product begin and where they go, kLanes outputs at a time.
#pragma once

#include "backends/cpu/simd.hpp"

namespace krait::cpu::KRAIT_ISA {

/// The bias of outputs from o on; zeros beyond the last.
KRAIT_INLINE Batch bias_at(const LinearArgs& args, std::int64_t o) {
  if (!args.bias || o >= args.outputs) return Batch(0.0f);
  return load_upto(args.bias + o, args.outputs - o);
}

/// y[t] from o on, or as much of it as there is.
KRAIT_INLINE void store_outputs(const LinearArgs& args, std::int64_t t, std::int64_t o,
                                Batch sums) {
  if (o < args.outputs) store_upto(args.y.at(t) + o, sums, args.outputs - o);
}

}  // namespace krait::cpu::KRAIT_ISA
