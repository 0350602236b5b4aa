// Checkpoints of published shapes with random weights, for benchmarks.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>

#include "runtime/model/checkpoint.h"
#include <krait/status.h>

namespace krait {

/// mamba-130m to mamba-2.8b; matrices in `weights` (f32, f16, bf16, or a block type by the rules of
/// weight_type.h), parameters in float32 with the ranges that trained models have. not_found lists
/// the shapes.
Result<std::shared_ptr<const Checkpoint>> random_checkpoint(std::string_view shape, DType weights,
                                                            std::uint64_t seed);

}  // namespace krait
