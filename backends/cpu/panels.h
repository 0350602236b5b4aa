// Weights in panels (isa.h, block_panels.h): the layout, and the arguments of kernels that read it.
#pragma once

#include "backends/cpu/kernel.h"

namespace krait::cpu {

/// Every weight of a matrix product lies in panels, and so does a table that an embedding reads,
/// since that is often the same tensor.
const WeightLayout* panel_layout();

/// Bytes of one panel of rows of so many inputs.
std::int64_t panel_bytes(DType type, std::int64_t inputs);

}  // namespace krait::cpu
