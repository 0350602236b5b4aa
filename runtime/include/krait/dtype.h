// The element and storage types of tensors.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include <krait/export.h>

namespace krait {

/// Those from q8_0 on store weights in blocks, in the layouts of GGUF: `linear` and `embedding`
/// take them, and nothing else does.
enum class DType : std::uint8_t {
  f64,
  f32,
  f16,
  bf16,
  i64,
  i32,
  u8,
  q8_0,
  q4_0,
  q4_1,
  q5_0,
  q5_1,
  q4_k,
  q5_k,
  q6_k
};
inline constexpr int kDTypeCount = 15;

/// What one knows about a type. A block type stores `block` elements of a row in `block_bytes`
/// bytes; every row is a whole number of blocks.
struct DTypeInfo {
  std::string_view name;  ///< as printed and parsed: "f32", "bf16", "q4_k"
  std::int64_t block;     ///< 1 for all but block types
  std::int64_t block_bytes;
  bool floating;  ///< whether elements are floating-point numbers; those of blocks are not
};

KRAIT_API const DTypeInfo& info(DType type);
inline std::string_view name(DType type) {
  return info(type).name;
}
KRAIT_API std::optional<DType> parse_dtype(std::string_view name);
inline bool is_block(DType type) {
  return info(type).block > 1;
}

/// Bytes of `elements` elements in one row; elements must be a multiple of the type's block.
inline std::int64_t bytes_of(DType type, std::int64_t elements) {
  return elements / info(type).block * info(type).block_bytes;
}

}  // namespace krait
