// Writing GGUF files, version 3.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/model/gguf.h"
#include <krait/status.h>

namespace krait {

/// Metadata in the order of the calls, as the file will hold them.
class GgufMetadata {
 public:
  void add(std::string_view key, std::uint32_t value);
  void add(std::string_view key, float value);
  void add(std::string_view key, bool value);
  void add(std::string_view key, std::string_view value);
  void add(std::string_view key, const char* value) { add(key, std::string_view(value)); }
  void add(std::string_view key, std::span<const std::string> values);
  void add(std::string_view key, std::span<const std::int32_t> values);
  /// A value of another file, as it is.
  void add(std::string_view key, const GgufValue& value);

  std::uint64_t count() const { return count_; }
  std::string_view bytes() const { return bytes_; }

 private:
  void begin(std::string_view key, GgufType type);

  std::string bytes_;
  std::uint64_t count_ = 0;
};

/// Yields the bytes of tensor `index`; the `data` of the tensors themselves is not looked at.
using TensorBytes = std::function<Result<std::span<const std::byte>>(std::size_t index)>;

/// Writes the file or, after an error, nothing. `bytes_of_tensor` is asked for every tensor in
/// order, once; what it returned last may be gone when it is asked again. So a file can be larger
/// than memory.
Status write_gguf(const std::filesystem::path& path, const GgufMetadata& metadata,
                  std::span<const NamedTensor> tensors, const TensorBytes& bytes_of_tensor);

}  // namespace krait
