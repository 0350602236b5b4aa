// The GGUF format, versions 2 and 3: typed metadata, then tensors, in one file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/model/safetensors.h"
#include <krait/status.h>

namespace krait {

/// The types of metadata, by the numbers that the format gives them.
enum class GgufType : std::uint32_t {
  u8,
  i8,
  u16,
  i16,
  u32,
  i32,
  f32,
  boolean,
  text,
  array,
  u64,
  i64,
  f64
};

/// One metadata value, as it lies in the file: numbers little-endian, texts and arrays after their
/// length in 64 bits.
struct GgufValue {
  GgufType type = GgufType::u32;
  GgufType element = GgufType::u32;  ///< of an array
  std::uint64_t count = 0;           ///< of an array
  std::span<const std::byte> bytes;  ///< of an array, the elements

  /// The value, if it is of such a type: whole numbers of any width that fit 63 bits, numbers of
  /// any kind. Nothing otherwise.
  std::optional<std::int64_t> whole_number() const;
  std::optional<double> number() const;
  std::optional<bool> boolean() const;
  std::optional<std::string_view> text() const;
  /// The elements of an array of texts, whole numbers, numbers.
  std::optional<std::vector<std::string_view>> texts() const;
  std::optional<std::vector<std::int64_t>> whole_numbers() const;
  std::optional<std::vector<double>> numbers() const;
};

/// A parsed file. It does not own the file's bytes: they must outlive it.
class GgufFile {
 public:
  /// `file` is untrusted; `what` names it in messages. Every length, count, offset and type is
  /// checked; tensors lie inside the file, without overlap; no key and no tensor occurs twice. A
  /// tensor of a type that Krait does not have is kept, with its `problem`.
  static Result<GgufFile> parse(std::span<const std::byte> file, std::string_view what);

  /// Sorted by name. Shapes are row-major: the format's extents in reverse. Data may lie at any
  /// address: see is_aligned().
  std::span<const NamedTensor> tensors() const { return tensors_; }
  const NamedTensor* find(std::string_view name) const { return find_tensor(tensors_, name); }

  using Metadata = std::map<std::string_view, GgufValue>;
  const Metadata& metadata() const { return metadata_; }
  /// Null if there is no such key.
  const GgufValue* value(std::string_view key) const;

 private:
  std::vector<NamedTensor> tensors_;
  Metadata metadata_;
};

/// Whether a file that begins like this says that it is GGUF.
bool looks_like_gguf(std::span<const std::byte> begin);

/// The format's number for a storage type; nothing for those that it does not have.
std::optional<std::uint32_t> gguf_tensor_type(DType dtype);

}  // namespace krait
