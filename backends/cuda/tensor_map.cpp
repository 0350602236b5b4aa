#include "backends/cuda/tensor_map.h"

#include "runtime/core/try.h"

namespace krait::cuda {
namespace {

using Encode = decltype(&cuTensorMapEncodeTiled);

/// The driver's function, through the runtime: the module does not link the driver.
Encode encode() {
  static const Encode found = [] {
    void* function = nullptr;
    cudaDriverEntryPointQueryResult result{};
    constexpr unsigned kSince = 12000;  // CUDA 12.0
    const cudaError_t error = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function,
                                                               kSince, cudaEnableDefault, &result);
    return error == cudaSuccess && result == cudaDriverEntryPointSuccess
               ? reinterpret_cast<Encode>(function)
               : nullptr;
  }();
  return found;
}

}  // namespace

Result<CUtensorMap> tensor_map(const void* matrix, std::int64_t rows, std::int64_t columns,
                               std::int64_t row, int tile_rows) {
  if (!encode()) return Status(Code::unsupported, "the driver has no cuTensorMapEncodeTiled");
  CUtensorMap map{};
  const cuuint64_t size[] = {static_cast<cuuint64_t>(columns), static_cast<cuuint64_t>(rows)};
  const cuuint64_t stride[] = {static_cast<cuuint64_t>(row) * 2};
  const cuuint32_t tile[] = {kTileColumns, static_cast<cuuint32_t>(tile_rows)};
  const cuuint32_t step[] = {1, 1};
  const CUresult result =
      encode()(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, const_cast<void*>(matrix), size, stride,
               tile, step, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
               CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS) {
    return Status(Code::internal, cat("describing a matrix of ", rows, " rows of ", columns,
                                      " for copies: driver error ", static_cast<int>(result)));
  }
  return map;
}

}  // namespace krait::cuda
