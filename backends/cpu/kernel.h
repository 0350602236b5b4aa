// The half of a CPU kernel that knows calls: says whether it can run one, splits it into blocks for
// the threads, and hands plain structs to the vector code of an instruction set (isa.h).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "backends/backend.h"
#include "backends/cpu/isa.h"
#include "backends/cpu/thread_pool.h"

namespace krait::cpu {

/// What a running kernel has at hand.
struct Run {
  const Isa& isa;
  ThreadPool& pool;
  TensorView workspace;
};

/// A kernel for every instruction set.
struct CpuKernel {
  std::string_view op;
  /// Where an op has several kernels: "gemv" makes "gemv.avx512".
  std::string_view variant = {};
  /// Why the kernel cannot run the call, or nothing; null: it takes what most kernels take, which
  /// is float32 activations and weights of any storage type (supports_types in cpu.cpp).
  std::string (*supports)(const Call& call) = nullptr;
  void (*run)(const Call& call, const Run& run);
  std::int64_t (*workspace)(const Call& call) = nullptr;
  const WeightLayout* (*layout)(const Call& call, int i) = nullptr;
};

/// The refusal of an operand that is not float32; empty if it is, or is absent.
std::string want_f32(std::string_view operand, const TensorView& view);

/// Rows of a view, counted over all axes but the innermost; a dense view is one row.
std::int64_t row_count(const TensorView& view);
/// Elements from the first one to row `r`.
std::int64_t row_offset(const TensorView& view, std::int64_t r);

inline Rows rows_of(const TensorView& view) {
  return view ? Rows{view.as<const float>(), view.stride[0]} : Rows{};
}
inline RowsOut rows_out(const TensorView& view) {
  return view ? RowsOut{view.as<float>(), view.stride[0]} : RowsOut{};
}
inline const float* vector_of(const TensorView& view) {
  return view ? view.as<const float>() : nullptr;
}

inline std::int64_t blocks_of(std::int64_t count, std::int64_t block) {
  return (count + block - 1) / block;
}

}  // namespace krait::cpu
