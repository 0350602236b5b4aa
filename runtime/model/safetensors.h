// The safetensors format: eight bytes of header length, a JSON header, the tensors' bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <krait/status.h>
#include <krait/tensor.h>

namespace krait {

/// A tensor in host memory that somebody else owns: row-major, without gaps.
struct NamedTensor {
  std::string name;
  DType dtype = DType::f32;
  Shape shape;
  const std::byte* data = nullptr;
  std::int64_t bytes = 0;
  /// Why Krait cannot use this tensor, such as an element type it does not know; then dtype, shape
  /// and data mean nothing. Empty for all others.
  std::string problem;
};

/// What a file says about itself: free text under free keys.
using Metadata = std::map<std::string, std::string>;

/// A parsed file. It does not own the file's bytes: they must outlive it.
class SafetensorsFile {
 public:
  /// `file` is untrusted; `what` names it in messages. Everything that the format demands is
  /// checked: every tensor inside the file, of the size its type and shape ask for, no overlap,
  /// no gap, no name twice. A tensor of a type or rank that Krait does not have is kept, with its
  /// `problem`.
  static Result<SafetensorsFile> parse(std::span<const std::byte> file, std::string_view what);

  /// Sorted by name. Data may lie at any address: see is_aligned().
  std::span<const NamedTensor> tensors() const { return tensors_; }
  const NamedTensor* find(std::string_view name) const;
  const Metadata& metadata() const { return metadata_; }

 private:
  std::vector<NamedTensor> tensors_;
  Metadata metadata_;
};

/// The tensor called `name` in a list sorted by name, or nullptr.
const NamedTensor* find_tensor(std::span<const NamedTensor> sorted, std::string_view name);

/// Whether the data may be read as elements of its type where it lies.
bool is_aligned(const NamedTensor& tensor);

/// The bytes of a tensor of whole blocks without gaps; nothing if they, or the strides of an empty
/// tensor, would overflow.
std::optional<std::int64_t> dense_bytes(DType dtype, std::span<const std::int64_t> dims);

/// Checks that a tensor made in memory says consistent things: numeric extents, and as many bytes
/// as type and shape ask for.
Status check_tensor(const NamedTensor& tensor);

/// Writes a file that every safetensors reader takes: the widest elements first, then by name, so
/// equal contents give equal files and every tensor is aligned. Never leaves half a file.
Status write_safetensors(const std::filesystem::path& path, std::span<const NamedTensor> tensors,
                         const Metadata& metadata);

}  // namespace krait
