// cuBLASLt, opened when the first large matrix product needs it: Krait neither links nor ships it.
#pragma once

#include <cstdint>
#include <cuda_runtime.h>
#include <memory>
#include <string>

#include <krait/dtype.h>
#include <krait/status.h>

namespace krait::cuda {

/// y[n, m] = Σ_k x[n, k] w[m, k], plus what y held before if `accumulate`. Sums are float32.
struct Product {
  const void* x;
  const void* w;
  void* y;
  std::int64_t x_row, w_row, y_row;  ///< elements from row to row
  std::int64_t rows, outputs, inputs;
  DType operands;  ///< of x and w: f32 (never rounded to TF32), f16 or bf16
  DType result;    ///< of y: f32, or that of the operands
  bool accumulate;
};

/// Why cuBLASLt cannot be used; empty if it can. Opens it the first time.
const std::string& cublaslt_missing();

/// Scratch memory that a product may use.
inline constexpr std::int64_t kProductWorkspace = std::int64_t{8} << 20;

/// cuBLASLt on one device. Used by one thread at a time, and only where it is not missing. The same
/// product is always computed in the same way, so that its result has the same bits.
class Products {
 public:
  Products();
  ~Products();
  /// Queues a product; `workspace` has kProductWorkspace bytes. Can be recorded in a graph.
  Status run(const Product& product, void* workspace, cudaStream_t stream);

 private:
  struct Plans;
  std::unique_ptr<Plans> plans_;
};

}  // namespace krait::cuda
