// Descriptions of matrices for the copy engine, which brings tiles of them into shared memory.
#pragma once

#include <cuda.h>

#include "backends/cuda/cuda.h"

namespace krait::cuda {

/// Columns of a tile: 128 bytes of bfloat16, the most that it is swizzled over.
constexpr int kTileColumns = 64;

/// A dense matrix of bfloat16, rows of `columns` elements every `row` elements, in tiles of
/// kTileColumns columns and `tile_rows` (at most 256) rows. The eight packs of sixteen bytes of a
/// tile's row r are stored with the bits of r % 8 in their numbers flipped, so that neither a row
/// nor a column of packs meets in a bank; what lies outside of the matrix is zeros. unsupported
/// where the driver has no such copies.
Result<CUtensorMap> tensor_map(const void* matrix, std::int64_t rows, std::int64_t columns,
                               std::int64_t row, int tile_rows);

/// Whether a matrix can be described so: its rows begin at multiples of sixteen bytes.
inline bool fits_tensor_map(const TensorView& matrix) {
  return matrix.dtype == DType::bf16 && rows_aligned(matrix) && matrix.stride[0] >= matrix.dim[1] &&
         matrix.dim[1] > 0;
}

}  // namespace krait::cuda
