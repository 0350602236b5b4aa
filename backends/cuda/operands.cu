#include "backends/cuda/numeric.cuh"
#include "backends/cuda/operands.h"
#include "runtime/core/try.h"

namespace krait::cuda {
namespace {

constexpr int kThreads = 256;

const WeightLayout kUnits{
    .name = "units",
    .bytes =
        [](const TensorView& stored) {
          return stored.dim[0] * unit_row(stored.dtype, stored.dim[1] / kUnit).bytes;
        },
    .view =
        [](const TensorView& stored) {
          return dense_view(nullptr, stored.dtype, shape_of(stored));
        },
    .pack = pack_units,
};

/// A thread for four weights, a row for every block of threads; they stride over longer ones.
template <DType type>
__global__ void write_block_rows(UnitMatrix matrix, const std::int32_t* index, std::int64_t first,
                                 RowsTo to) {
  const std::int64_t r = blockIdx.x;
  const std::byte* from = matrix.data + (index ? index[r] : first + r) * matrix.row.bytes;
  for (std::int64_t g = threadIdx.x; g < matrix.units * 8; g += blockDim.x) {
    float w[4];
    load_weights<type>(from, matrix.row, g / 8, static_cast<int>(g % 8), w);
#pragma unroll
    for (int b = 0; b < 4; ++b) store_float(to.data, to.type, r * to.row + 4 * g + b, w[b]);
  }
}

__global__ void write_float_rows(const void* matrix, DType type, std::int64_t row,
                                 std::int64_t width, const std::int32_t* index, std::int64_t first,
                                 RowsTo to) {
  const std::int64_t r = blockIdx.x;
  const std::int64_t from = (index ? index[r] : first + r) * row;
  for (std::int64_t i = threadIdx.x; i < width; i += blockDim.x)
    store_float(to.data, to.type, r * to.row + i, load_float(matrix, type, from + i));
}

}  // namespace

const WeightLayout* weight_layout(const Call& call, int i) {
  return i == 1 && is_block(call.inputs[1].dtype) ? &kUnits : nullptr;
}

std::string want_blocks(std::string_view operand, const TensorView& view) {
  if (is_block(view.dtype)) return {};
  return cat(operand, ": expected a block type, got ", name(view.dtype));
}

UnitMatrix unit_matrix(const TensorView& packed) {
  const std::int64_t units = packed.dim[1] / kUnit;
  return {packed.as<const std::byte>(), unit_row(packed.dtype, units), units};
}

void write_rows(const TensorView& matrix, const std::int32_t* index, std::int64_t first,
                std::int64_t rows, const RowsTo& to, cudaStream_t stream) {
  if (rows == 0 || matrix.dim[1] == 0) return;
  const auto blocks = static_cast<unsigned>(rows);
  if (is_block(matrix.dtype)) {
    with_block_type(matrix.dtype, [&](auto type) {
      write_block_rows<type.value>
          <<<blocks, kThreads, 0, stream>>>(unit_matrix(matrix), index, first, to);
    });
    return;
  }
  write_float_rows<<<blocks, kThreads, 0, stream>>>(
      matrix.as<const void>(), matrix.dtype, matrix.stride[0], matrix.dim[1], index, first, to);
}

}  // namespace krait::cuda
