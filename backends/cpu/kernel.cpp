#include "backends/cpu/kernel.h"

#include "runtime/core/try.h"

namespace krait::cpu {

std::string want_f32(std::string_view operand, const TensorView& view) {
  if (!view || view.dtype == DType::f32) return {};
  return cat(operand, ": ", name(view.dtype),
             " is not supported; the CPU kernels keep activations in f32");
}

std::int64_t row_count(const TensorView& view) {
  std::int64_t rows = 1;
  for (int axis = 0; axis + 1 < view.rank; ++axis) rows *= view.dim[axis];
  return rows;
}

std::int64_t row_offset(const TensorView& view, std::int64_t r) {
  std::int64_t offset = 0;
  for (int axis = view.rank - 2; axis >= 0; --axis) {
    offset += r % view.dim[axis] * view.stride[axis];
    r /= view.dim[axis];
  }
  return offset;
}

}  // namespace krait::cpu
