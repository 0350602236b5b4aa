// Conversion between storage types, for any strides: slow, exact, used where speed does not count.
#pragma once

#include <krait/status.h>
#include <krait/tensor.h>

namespace krait {

/// Copies `from` to `to` (host memory, the same extents), rounding to nearest even. Going from
/// double through float to a 16-bit type rounds once only: the float step keeps a sticky bit. Block
/// types are dequantised exactly, and quantised by quantize() of blocks.h.
Status convert(const TensorView& from, const TensorView& to);

}  // namespace krait
