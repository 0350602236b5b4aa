#include <algorithm>
#include <thread>
#include <vector>

#include "backends/cuda/operands.h"
#include "backends/cuda/tensor_cores.cuh"
#include "runtime/core/try.h"

namespace krait::cuda {
namespace {

constexpr int kThreads = 256;

/// Packs rows on several cores: on one, 5- and 6-bit types take two seconds per billion weights.
void pack_in_parallel(const TensorView& stored, std::byte* packed) {
  constexpr std::int64_t kFewestWeights = 1 << 20;  // that are worth a thread
  const std::int64_t rows = stored.dim[0], row = stored.dim[1];
  const std::int64_t cores = std::max<std::int64_t>(std::thread::hardware_concurrency(), 1);
  const std::int64_t workers = std::clamp<std::int64_t>(rows * row / kFewestWeights, 1, cores);
  const std::int64_t packed_row = unit_row(stored.dtype, row / kUnit).bytes;
  std::vector<std::jthread> threads;
  for (std::int64_t w = 0; w < workers; ++w) {
    const std::int64_t first = rows * w / workers, last = rows * (w + 1) / workers;
    TensorView part = stored;
    part.offset += bytes_of(stored.dtype, first * row);
    part.dim[0] = last - first;
    threads.emplace_back([=] { pack_units(part, packed + first * packed_row); });
  }
}

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
    .pack = pack_in_parallel,
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

/// x as three bfloat16 terms, in three matrices (tensor_cores.cuh).
__global__ void split_rows(const float* x, std::int64_t x_row, std::int64_t width,
                           std::int64_t first, __nv_bfloat16* to) {
  const std::int64_t rows = gridDim.x, r = blockIdx.x;
  for (std::int64_t i = threadIdx.x; i < width; i += blockDim.x) {
    float rest = x[(first + r) * x_row + i];
#pragma unroll
    for (int k = 0; k < kTerms<float>; ++k) {
      const std::uint32_t term = k == 0 ? take_term(rest) : take_finite_term(rest);
      to[(k * rows + r) * width + i] =
          __ushort_as_bfloat16(static_cast<unsigned short>(term >> 16));
    }
  }
}

__global__ void finish_rows(Sums sums, const float* bias, std::int64_t width, RowsTo y) {
  const std::int64_t rows = gridDim.x, r = blockIdx.x;
  for (std::int64_t o = threadIdx.x; o < width; o += blockDim.x) {
    float sum = 0;
    for (int k = sums.terms - 1; k >= 0; --k) sum += sums.data[(k * rows + r) * sums.row + o];
    store_float(y.data, y.type, r * y.row + o, sum + (bias ? bias[o] : 0.0f));
  }
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

void write_terms(const TensorView& x, std::int64_t first, std::int64_t rows, void* to,
                 cudaStream_t stream) {
  if (rows == 0) return;
  split_rows<<<static_cast<unsigned>(rows), kThreads, 0, stream>>>(
      x.as<const float>(), x.stride[0], x.dim[1], first, static_cast<__nv_bfloat16*>(to));
}

void finish_sums(const Sums& sums, const float* bias, std::int64_t rows, std::int64_t width,
                 const RowsTo& y, cudaStream_t stream) {
  if (rows == 0) return;
  finish_rows<<<static_cast<unsigned>(rows), kThreads, 0, stream>>>(sums, bias, width, y);
}

}  // namespace krait::cuda
