// What goes into a matrix product and comes out of it: block-quantised matrices in their layout,
// and kernels that write operands in the type that a product takes.
#pragma once

#include <cstdint>
#include <string>

#include "backends/cuda/block_units.h"
#include "backends/cuda/cuda.h"

namespace krait::cuda {

/// The layout that every kernel wants of a block-quantised weight, so that `linear` and `embedding`
/// share one copy of a tied one; null for other types.
const WeightLayout* weight_layout(const Call& call, int i);

/// Empty for the types of a weight that kernels read: floating-point ones or blocks.
std::string want_blocks(std::string_view operand, const TensorView& view);

/// A packed matrix, as kernels see it.
struct UnitMatrix {
  const std::byte* data;
  UnitRow row;
  std::int64_t units;  ///< of a row
};
UnitMatrix unit_matrix(const TensorView& packed);

/// Rows that a kernel writes.
struct RowsTo {
  void* data;
  DType type;
  std::int64_t row;  ///< elements from row to row
};

/// Row r of `to` is row `first` + r of a matrix of any weight type, or row index[r] where there is
/// an index.
void write_rows(const TensorView& matrix, const std::int32_t* index, std::int64_t first,
                std::int64_t rows, const RowsTo& to, cudaStream_t stream);

/// Rows `first` to `first` + `rows` − 1 of a float32 matrix, each as the sum of three bfloat16 rows
/// without loss: term k of row r is row k·rows + r of `to`, which is dense.
void write_terms(const TensorView& x, std::int64_t first, std::int64_t rows, void* to,
                 cudaStream_t stream);

/// Sums of products: `terms` matrices of as many rows, one below the other.
struct Sums {
  const float* data;
  std::int64_t row;  ///< elements from row to row
  int terms;
};

/// y = the terms' sum, the last term first, + bias (may be null). Sums may lie where y does.
void finish_sums(const Sums& sums, const float* bias, std::int64_t rows, std::int64_t width,
                 const RowsTo& y, cudaStream_t stream);

}  // namespace krait::cuda
