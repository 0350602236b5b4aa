#include "runtime/core/convert.h"

#include <bit>
#include <cmath>
#include <cstring>

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
  }
  return nullptr;
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
      return [](std::byte* p, double v) { write(p, static_cast<std::int64_t>(v)); };
    case DType::i32:
      return [](std::byte* p, double v) { write(p, static_cast<std::int32_t>(v)); };
    case DType::u8:
      return [](std::byte* p, double v) { write(p, static_cast<std::uint8_t>(v)); };
  }
  return nullptr;
}

}  // namespace

Status convert(const TensorView& from, const TensorView& to) {
  if (from.rank != to.rank || from.dim != to.dim) {
    return Status(Code::internal, cat("convert: ", to_string(shape_of(from)), " does not fit ",
                                      to_string(shape_of(to))));
  }
  const Load load = loader(from.dtype);
  const Store store = storer(to.dtype);
  const std::int64_t from_bytes = info(from.dtype).block_bytes;
  const std::int64_t to_bytes = info(to.dtype).block_bytes;
  const std::int64_t inner = from.rank ? from.dim[from.rank - 1] : 1;
  const std::int64_t rows = inner ? from.elements() / inner : 0;
  for (std::int64_t row = 0; row < rows; ++row) {
    std::int64_t from_at = 0;
    std::int64_t to_at = 0;
    for (std::int64_t rest = row, axis = from.rank - 2; axis >= 0; --axis) {
      from_at += rest % from.dim[axis] * from.stride[axis];
      to_at += rest % from.dim[axis] * to.stride[axis];
      rest /= from.dim[axis];
    }
    const std::byte* source = from.as<std::byte>() + from_at * from_bytes;
    std::byte* target = to.as<std::byte>() + to_at * to_bytes;
    if (from.dtype == to.dtype) {
      std::memcpy(target, source, static_cast<std::size_t>(inner * to_bytes));
      continue;
    }
    for (std::int64_t i = 0; i < inner; ++i)
      store(target + i * to_bytes, load(source + i * from_bytes));
  }
  return {};
}

}  // namespace krait
