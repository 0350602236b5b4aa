// A model's files as the rest of Krait sees them: a configuration, named tensors and a tokenizer,
// whatever the format.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/core/json.h"
#include "runtime/model/gguf.h"
#include "runtime/model/mapped_file.h"
#include "runtime/model/safetensors.h"
#include <krait/status.h>
#include <krait/tokenizer.h>

namespace krait {

/// A tensor of a checkpoint: row-major, in host memory, aligned to its element type.
using CheckpointTensor = NamedTensor;

/// Immutable, and shared between threads. Tensors and what they point to live as long as this.
class Checkpoint {
 public:
  /// `path`: a folder with config.json and model.safetensors, or model.safetensors.index.json and
  /// the shards that it lists; one .safetensors file with config.json beside it; a GGUF file; or a
  /// folder with one .gguf file and no config.json. Nothing is read but the headers: tensors stay
  /// in the mapped files (misaligned ones, which only odd writers make, are copied).
  static Result<std::shared_ptr<const Checkpoint>> open(const std::filesystem::path& path);

  /// A checkpoint that was made, not read. Tensors may point into `owner`, or have data nullptr
  /// where only their shapes matter.
  static Result<std::shared_ptr<const Checkpoint>> from_memory(
      Json config, std::vector<CheckpointTensor> tensors, std::shared_ptr<const void> owner);

  /// config.json as it is, or what it would be for a GGUF file: an object.
  const Json& config() const { return config_; }
  /// Sorted by name. Those with a `problem` are here, too: they must not be taken for absent.
  std::span<const CheckpointTensor> tensors() const { return tensors_; }
  /// The tensor, or nullptr if the checkpoint has none of that name.
  const CheckpointTensor* find(std::string_view name) const;
  /// The tensor for use: not_found if it is not there, unsupported if it has a `problem`.
  Result<const CheckpointTensor*> get(std::string_view name) const;
  /// Of all tensors together.
  std::int64_t bytes() const;

  /// Says that bytes of the tensor have been packed elsewhere: their pages may leave memory, and
  /// come back from the file if they are read after all.
  void release(const CheckpointTensor& tensor, std::int64_t offset, std::int64_t bytes) const;
  void release(const CheckpointTensor& tensor) const { release(tensor, 0, tensor.bytes); }

  /// The GGUF file that this is, or null.
  const GgufFile* gguf() const { return gguf_ ? &*gguf_ : nullptr; }
  /// The tokenizer in a GGUF file, or of tokenizer.json beside the tensors; not_found if there is
  /// none.
  Result<Tokenizer> tokenizer() const;

  /// The whole text of a file beside the tensors, such as tokenizer.json; `name` is a plain name.
  Result<std::string> read_sibling(std::string_view name) const;

 private:
  Checkpoint() = default;  // NOLINT(bugprone-exception-escape): a null Json throws nothing

  Status read_config();
  Status read_gguf(const std::filesystem::path& path);
  Status add_file(const std::filesystem::path& path, std::vector<CheckpointTensor>& added);
  void add_tensor(CheckpointTensor tensor, const MappedFile& file,
                  std::vector<CheckpointTensor>& added);
  Status add_shards(const std::filesystem::path& index);
  Status finish();

  std::filesystem::path folder_;  // of the siblings; empty for one from memory
  Json config_;
  std::vector<CheckpointTensor> tensors_;
  std::vector<MappedFile> files_;
  std::optional<GgufFile> gguf_;                      // of the only file
  std::vector<std::unique_ptr<std::byte[]>> copies_;  // of misaligned tensors
  std::shared_ptr<const void> owner_;
};

}  // namespace krait
