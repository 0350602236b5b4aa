// linear on the CPU with inputs rounded to what the processor multiplies faster: int8 in blocks for
// weights in blocks, bfloat16 for weights in bfloat16. Runs where a call allows it (Call::native).
#pragma once

#include <cstdint>
#include <string>

#include "backends/cpu/kernel.h"

namespace krait::cpu {

enum class RoundedTo { int8, bf16 };

/// Why such a product cannot run a call whose types the CPU kernels take, or nothing.
std::string rounded_refusal(const Call& call, RoundedTo inputs);
std::int64_t rounded_workspace(const Call& call, const Device& device);
void linear_rounded(const Call& call, const RoundedIsa& isa, ThreadPool& pool,
                    const TensorView& workspace);

}  // namespace krait::cpu
