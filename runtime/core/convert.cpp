#include "runtime/core/convert.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "runtime/core/blocks.h"
#include "runtime/core/half.h"
#include "runtime/core/try.h"

namespace krait {
namespace {

/// Round to odd: the result, rounded again to a shorter type, equals one rounding of `value`.
float to_float_odd(double value) {
  const float nearest = static_cast<float>(value);
  if (std::isnan(value) || static_cast<double>(nearest) == value || std::isinf(nearest)) {
    return nearest;
  }
  auto bits = std::bit_cast<std::uint32_t>(nearest);
  const bool away = std::fabs(static_cast<double>(nearest)) > std::fabs(value);
  if (away) --bits;  // now truncated towards zero
  return std::bit_cast<float>(bits | 1u);
}

using Load = double (*)(const std::byte*);
using Store = void (*)(std::byte*, double);

template <class Type>
Type read(const std::byte* from) {
  Type value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

template <class Type>
void write(std::byte* to, Type value) {
  std::memcpy(to, &value, sizeof value);
}

Load loader(DType type) {
  switch (type) {
    case DType::f64:
      return [](const std::byte* p) { return read<double>(p); };
    case DType::f32:
      return [](const std::byte* p) { return double(read<float>(p)); };
    case DType::f16:
      return [](const std::byte* p) { return double(to_float(read<f16>(p))); };
    case DType::bf16:
      return [](const std::byte* p) { return double(to_float(read<bf16>(p))); };
    case DType::i64:
      return [](const std::byte* p) { return double(read<std::int64_t>(p)); };
    case DType::i32:
      return [](const std::byte* p) { return double(read<std::int32_t>(p)); };
    case DType::u8:
      return [](const std::byte* p) { return double(read<std::uint8_t>(p)); };
    default:
      return nullptr;  // blocks: see convert_row
  }
}

/// The nearest integer that the type holds, of the value without its fraction; NaN becomes 0.
template <class Integer>
Integer to_integer(double value) {
  using Limits = std::numeric_limits<Integer>;
  if (std::isnan(value)) return 0;
  if (value <= static_cast<double>(Limits::min())) return Limits::min();
  // For int64 the largest value is not a double: the next one is 2^63.
  if (value >= static_cast<double>(Limits::max())) return Limits::max();
  return static_cast<Integer>(value);
}

Store storer(DType type) {
  switch (type) {
    case DType::f64:
      return [](std::byte* p, double v) { write(p, v); };
    case DType::f32:
      return [](std::byte* p, double v) { write(p, static_cast<float>(v)); };
    case DType::f16:
      return [](std::byte* p, double v) { write(p, to_f16(to_float_odd(v))); };
    case DType::bf16:
      return [](std::byte* p, double v) { write(p, to_bf16(to_float_odd(v))); };
    case DType::i64:
      return [](std::byte* p, double v) { write(p, to_integer<std::int64_t>(v)); };
    case DType::i32:
      return [](std::byte* p, double v) { write(p, to_integer<std::int32_t>(v)); };
    case DType::u8:
      return [](std::byte* p, double v) { write(p, to_integer<std::uint8_t>(v)); };
    default:
      return nullptr;
  }
}

/// `count` elements that follow each other, whole blocks of either type. `values` has room for as
/// many if one of them is a block type.
void convert_row(DType from_type, const std::byte* from, DType to_type, std::byte* to,
                 std::int64_t count, std::vector<float>& values) {
  if (from_type == to_type) {
    std::memcpy(to, from, static_cast<std::size_t>(bytes_of(to_type, count)));
    return;
  }
  auto* const floats = reinterpret_cast<std::byte*>(values.data());
  if (is_block(from_type)) {
    dequantize(from_type, from, values);
    return convert_row(DType::f32, floats, to_type, to, count, values);
  }
  if (is_block(to_type)) {
    if (from != floats) convert_row(from_type, from, DType::f32, floats, count, values);
    return quantize(to_type, values, to);
  }
  const Load load = loader(from_type);
  const Store store = storer(to_type);
  const std::int64_t from_bytes = info(from_type).block_bytes;
  const std::int64_t to_bytes = info(to_type).block_bytes;
  for (; count > 0; --count, from += from_bytes, to += to_bytes) store(to, load(from));
}

/// Whether the rows of `view` are whole blocks, and begin at whole blocks.
bool has_whole_blocks(const TensorView& view) {
  const std::int64_t block = info(view.dtype).block;
  if (block == 1) return true;
  if (view.rank == 0 || view.dim[static_cast<std::size_t>(view.rank - 1)] % block != 0)
    return false;
  for (std::size_t axis = 0; axis + 1 < static_cast<std::size_t>(view.rank); ++axis) {
    if (view.stride[axis] % block != 0) return false;
  }
  return true;
}

}  // namespace

Status convert(const TensorView& from, const TensorView& to) {
  if (from.rank != to.rank || from.dim != to.dim) {
    return Status(Code::internal, cat("convert: ", to_string(shape_of(from)), " does not fit ",
                                      to_string(shape_of(to))));
  }
  for (const TensorView* view : {&from, &to}) {
    if (!has_whole_blocks(*view)) {
      return invalid("convert: rows of ", name(view->dtype), " are whole blocks of ",
                     info(view->dtype).block, " elements, got ", to_string(shape_of(*view)));
    }
  }
  const std::int64_t inner = from.rank ? from.dim[from.rank - 1] : 1;
  const std::int64_t rows = inner ? from.elements() / inner : 0;
  std::vector<float> values;
  if (is_block(from.dtype) || is_block(to.dtype)) values.resize(static_cast<std::size_t>(inner));
  for (std::int64_t row = 0; row < rows; ++row) {
    std::int64_t from_at = 0;
    std::int64_t to_at = 0;
    for (std::int64_t rest = row, axis = from.rank - 2; axis >= 0; --axis) {
      from_at += rest % from.dim[axis] * from.stride[axis];
      to_at += rest % from.dim[axis] * to.stride[axis];
      rest /= from.dim[axis];
    }
    convert_row(from.dtype, from.as<std::byte>() + bytes_of(from.dtype, from_at), to.dtype,
                to.as<std::byte>() + bytes_of(to.dtype, to_at), inner, values);
  }
  return {};
}

}  // namespace krait
