// What kernels of linear are given that load bfloat16 weights and inputs, bfloat16 or float32 as
// terms (tensor_cores.cuh), to registers at once.
#pragma once

#include <string>

#include "backends/cuda/cuda.h"
#include "backends/cuda/tensor_cores.cuh"
#include "runtime/core/try.h"

namespace krait::cuda {

template <class X>
struct LinearArgs {
  const X* x;
  const __nv_bfloat16* w;
  const float* bias;  ///< may be null
  void* y;
  std::int64_t x_row, y_row;
  DType type;  ///< of y
  int tokens, outputs, inputs;
  bool neat;  ///< rows of x and w are whole packs, at multiples of sixteen bytes
};

/// Why the types and sizes of a call do not fit; empty if they do.
inline std::string linear_args_refusal(const Call& call) {
  const auto [x, w, bias] = call.in<3>();
  if ((x.dtype != DType::bf16 && x.dtype != DType::f32) || w.dtype != DType::bf16)
    return cat("expected x f32 or bf16 and w bf16, got ", name(x.dtype), " and ", name(w.dtype));
  if (w.dim[0] > 1 << 30 || w.dim[1] > 1 << 30) return "w is too large";
  return want_float("y", call.outputs[0]);
}

/// Calls body(LinearArgs<X>).
template <class Body>
void with_linear_args(const Call& call, Body&& body) {
  const auto [x, w, bias] = call.in<3>();
  const TensorView& y = call.outputs[0];
  with_term_type(x.dtype, [&](auto type) {
    using X = decltype(type);
    body(LinearArgs<X>{x.as<const X>(), w.as<const __nv_bfloat16>(),
                       bias ? bias.as<const float>() : nullptr, y.as<void>(), x.stride[0],
                       y.stride[0], y.dtype, static_cast<int>(x.dim[0]), static_cast<int>(w.dim[0]),
                       static_cast<int>(w.dim[1]),
                       w.dim[1] % 8 == 0 && rows_aligned(x) && rows_aligned(w)});
  });
}

}  // namespace krait::cuda
