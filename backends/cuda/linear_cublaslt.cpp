// linear for many tokens, on cuBLASLt: y = x wᵀ + bias. Operands whose types no product takes as
// they are are written out first, some rows at a time.
#include <algorithm>

#include "backends/cuda/cublaslt.h"
#include "backends/cuda/operands.h"
#include "runtime/core/try.h"

namespace krait::cuda {
namespace {

/// How a call becomes products. Those of 16-bit operands want rows that are aligned.
///
/// float32 x times bfloat16 w is exact in three terms: x = x₀ + x₁ + x₂ with eight of its 24 bits
/// in each, which are bfloat16 numbers. Two terms would leave out up to 2⁻¹⁸ of every element, at
/// random some 7·10⁻⁷ of a sum and five times that in the worst of many outputs: more than linear's
/// tolerance up to about 170 inputs. The terms are rows of one product, 3T × I, so that w is read
/// once; their sums are added up in float32, smallest first. (An infinite weight times the zeros
/// among the terms is NaN: weights are expected to be finite.)
///
/// Tensor cores truncate as they add: every sixteen inputs, a sum loses up to 2⁻²³ of itself
/// towards zero. Since partial sums grow with √I, that adds up to about I/16 · 0.72 · 2/3 = 0.03·I
/// units of 2⁻²⁴, which for large I is more than the rounding errors that linear's tolerance allows
/// for. So an exact product adds up `slice` inputs at most before a correctly rounded addition.
struct Recipe {
  DType operands = DType::f32;  ///< of x and w in the products
  int terms = 1;                ///< that x is split into
  bool copy_x = false;          ///< x is written out, as operands or as terms
  bool copy_w = false;
  bool in_place = false;      ///< products write y itself, not sums that are finished later
  DType result = DType::f32;  ///< of the products
  std::int64_t tokens = 0, outputs = 0, slice = 0;  ///< at a time
  std::int64_t x_bytes = 0, w_bytes = 0, sum_bytes = 0;

  std::int64_t workspace() const { return kProductWorkspace + x_bytes + w_bytes + sum_bytes; }
};

/// Bytes that copies of x with their sums, and copies of w, may take at a time. The latter are read
/// soon after they are written, from the second-level cache where it is large enough.
constexpr std::int64_t kTokenBytes = std::int64_t{64} << 20;
constexpr std::int64_t kWeightBytes = std::int64_t{32} << 20;
/// Tokens or outputs that are worth a product of their own.
constexpr std::int64_t kFewest = 64;
/// Inputs of a 16-bit product that are added up by tensor cores alone.
constexpr std::int64_t kSlice = 2048;

std::int64_t bytes_of_element(DType type) {
  return info(type).block_bytes;
}

std::int64_t round_up(std::int64_t n, std::int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

DType operand_type(const Call& call, const CudaDevice& device) {
  const DType x = call.inputs[0].dtype, w = call.inputs[1].dtype;
  const bool bf16_units = device.compute_capability() >= 80;
  if (call.inputs[0].dim[1] % 8 != 0) return DType::f32;  // rows of w would not be aligned
  if (call.native && bf16_units) return DType::bf16;
  if (x == DType::f16 && w == DType::f16) return DType::f16;
  if (w == DType::bf16 && x != DType::f16 && bf16_units) return DType::bf16;
  return DType::f32;
}

Recipe recipe_of(const Call& call, const CudaDevice& device) {
  const auto [x, w, bias] = call.in<3>();
  const TensorView& y = call.outputs[0];
  const std::int64_t tokens = y.dim[0], outputs = y.dim[1], inputs = x.dim[1];
  Recipe recipe;
  recipe.operands = operand_type(call, device);
  const bool wide = recipe.operands == DType::f32;
  const std::int64_t size = bytes_of_element(recipe.operands);
  recipe.terms = x.dtype == DType::f32 && !wide && !call.native ? 3 : 1;
  recipe.copy_x = x.dtype != recipe.operands || x.stride[0] < inputs || !(wide || rows_aligned(x));
  recipe.copy_w = w.dtype != recipe.operands || !(wide || w.offset % 16 == 0);
  const bool can_hold =
      y.dtype == DType::f32 || (y.dtype == recipe.operands && !bias);  // rounded once
  recipe.in_place =
      recipe.terms == 1 && can_hold && y.stride[0] >= outputs && (wide || rows_aligned(y));
  recipe.result = recipe.in_place ? y.dtype : DType::f32;
  recipe.slice = wide || call.native || recipe.result != DType::f32
                     ? std::max<std::int64_t>(inputs, 1)
                     : kSlice;
  recipe.outputs = outputs;
  if (recipe.copy_w) {
    recipe.outputs =
        std::min(outputs, std::max(kWeightBytes / (inputs * size) / kFewest * kFewest, kFewest));
    recipe.w_bytes = round_up(recipe.outputs * inputs * size, 256);
  }
  const std::int64_t x_row = recipe.copy_x ? recipe.terms * inputs * size : 0;
  const std::int64_t sum_row =
      recipe.in_place ? 0 : recipe.terms * round_up(recipe.outputs, 8) * std::int64_t{4};
  recipe.tokens = x_row + sum_row == 0
                      ? tokens
                      : std::min(tokens, std::max(kTokenBytes / (x_row + sum_row), kFewest));
  recipe.x_bytes = round_up(recipe.tokens * x_row, 256);
  recipe.sum_bytes = round_up(recipe.tokens * sum_row, 256);
  return recipe;
}

const CudaDevice& cuda_device(const Device& device) {
  return static_cast<const CudaDevice&>(device);
}

std::string supports(const Call& call, const Device&) {
  std::string reason = want_float("x", call.inputs[0]);
  if (reason.empty() && !is_block(call.inputs[1].dtype)) reason = want_float("w", call.inputs[1]);
  if (reason.empty()) reason = want_float("y", call.outputs[0]);
  if (reason.empty() && call.inputs[0].dim[1] == 0) reason = "x: no inputs to add up";
  return reason.empty() ? cublaslt_missing() : reason;
}

std::int64_t workspace(const Call& call, const Device& device) {
  return recipe_of(call, cuda_device(device)).workspace();
}

/// The element at (row, column) of a matrix.
std::byte* element(const TensorView& view, std::int64_t row, std::int64_t column) {
  return view.as<std::byte>() + (row * view.stride[0] + column) * bytes_of_element(view.dtype);
}

Status run(const Call& call, const Launch& launch) {
  const auto [x, w, bias] = call.in<3>();
  const TensorView& y = call.outputs[0];
  auto& device = static_cast<CudaDevice&>(launch.device);
  const Recipe recipe = recipe_of(call, device);
  const std::int64_t tokens = y.dim[0], outputs = y.dim[1], inputs = x.dim[1];
  if (tokens == 0 || outputs == 0) return {};
  auto* scratch = launch.workspace.as<std::byte>();
  std::byte* const x_copy = scratch + kProductWorkspace;
  std::byte* const w_copy = x_copy + recipe.x_bytes;
  std::byte* const sums = w_copy + recipe.w_bytes;
  const cudaStream_t stream = device.stream();
  const std::int64_t size = bytes_of_element(recipe.operands);

  for (std::int64_t t0 = 0; t0 < tokens; t0 += recipe.tokens) {
    const std::int64_t n = std::min(recipe.tokens, tokens - t0);
    if (recipe.terms > 1)
      write_terms(x, t0, n, x_copy, stream);
    else if (recipe.copy_x)
      write_rows(x, nullptr, t0, n, {x_copy, recipe.operands, inputs}, stream);
    for (std::int64_t o0 = 0; o0 < outputs; o0 += recipe.outputs) {
      const std::int64_t m = std::min(recipe.outputs, outputs - o0);
      if (recipe.copy_w) write_rows(w, nullptr, o0, m, {w_copy, recipe.operands, inputs}, stream);
      Product product;
      product.x = recipe.copy_x ? x_copy : element(x, t0, 0);
      product.x_row = recipe.copy_x ? inputs : x.stride[0];
      product.w = recipe.copy_w ? w_copy : element(w, o0, 0);
      product.w_row = inputs;
      product.y = recipe.in_place ? element(y, t0, o0) : sums;
      product.y_row = recipe.in_place ? y.stride[0] : round_up(m, 8);
      product.rows = recipe.terms * n;
      product.outputs = m;
      product.operands = recipe.operands;
      product.result = recipe.result;
      for (std::int64_t i0 = 0; i0 < inputs; i0 += recipe.slice) {
        Product slice = product;
        slice.x = static_cast<const std::byte*>(product.x) + i0 * size;
        slice.w = static_cast<const std::byte*>(product.w) + i0 * size;
        slice.inputs = std::min(recipe.slice, inputs - i0);
        slice.accumulate = i0 > 0;
        KRAIT_TRY(device.products().run(slice, scratch, stream));
      }
      if (!recipe.in_place || bias) {
        finish_sums({static_cast<const float*>(product.y), product.y_row, recipe.terms},
                    bias ? bias.as<const float>() + o0 : nullptr, n, m,
                    {element(y, t0, o0), y.dtype, y.stride[0]}, stream);
      }
    }
  }
  return launched(call);
}

}  // namespace

extern const Kernel linear_cublaslt_kernel{.op = "linear",
                                           .name = "cublaslt",
                                           .supports = supports,
                                           .run = run,
                                           .workspace = workspace,
                                           .layout = weight_layout};

}  // namespace krait::cuda
