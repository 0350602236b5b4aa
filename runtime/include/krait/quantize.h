// Writing a model as a GGUF file, with its weights in another storage type.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include <krait/dtype.h>
#include <krait/export.h>
#include <krait/model.h>
#include <krait/status.h>
#include <krait/tensor.h>

namespace krait {

struct QuantizeOptions {
  /// Of the matrices of products: a block type, f32, f16 or bf16.
  DType type = DType::q8_0;
  /// 0: one per processor. The file does not depend on it.
  int threads = 0;
  /// Called now and then, by the calling thread, with elements that are done and that there are.
  std::function<void(std::int64_t done, std::int64_t total)> progress = {};
};

struct QuantizedTensor {
  std::string name;  ///< in the GGUF file: "blk.0.ssm_in.weight"
  Shape shape;
  DType from = DType::f32;
  DType to = DType::f32;
  std::string reason;  ///< why not the type that was asked for; else empty
};

struct QuantizeReport {
  std::vector<QuantizedTensor> tensors;  ///< in the order of the file
  std::int64_t bytes_before = 0;         ///< of all tensors
  std::int64_t bytes = 0;
  /// Why the file holds no tokenizer, or none that llama.cpp reads; else empty.
  std::string tokenizer_problem;
};

/// Writes `model`, of the families mamba and falcon_mamba, as the GGUF file `path`, which replaces
/// one of that name once it is complete. Matrices get `options.type`, with these exceptions: rows
/// that are not whole blocks get a type with smaller blocks (q4_k: q5_0, q5_k: q5_1, q6_k: q8_0) or
/// f16, and an embedding that is the head as well, or a head of its own, no type below q6_k. All
/// else is f32: vectors, A, and the convolution. A quantised model can be quantised again; to f32,
/// that is exact. Errors: unsupported for other models, corrupt for weights that are not finite,
/// io.
KRAIT_API Result<QuantizeReport> quantize_model(const Model& model,
                                                const std::filesystem::path& path,
                                                const QuantizeOptions& options);

}  // namespace krait
