// The element and storage types of tensors.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include <krait/export.h>

namespace krait {

enum class DType : std::uint8_t { f64, f32, f16, bf16, i64, i32, u8 };
inline constexpr int kDTypeCount = 7;

/// What one knows about a type. A block type stores `block` elements in `block_bytes` bytes.
struct DTypeInfo {
  std::string_view name;  ///< as printed and parsed: "f32", "bf16"
  std::int64_t block;
  std::int64_t block_bytes;
  bool floating;
};

KRAIT_API const DTypeInfo& info(DType type);
inline std::string_view name(DType type) {
  return info(type).name;
}
KRAIT_API std::optional<DType> parse_dtype(std::string_view name);

/// Bytes of `elements` elements in one row; elements must be a multiple of the type's block.
inline std::int64_t bytes_of(DType type, std::int64_t elements) {
  return elements / info(type).block * info(type).block_bytes;
}

}  // namespace krait
