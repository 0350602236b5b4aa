#include "runtime/model/checkpoint.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <utility>

#include "runtime/core/try.h"
#include "runtime/model/gguf_model.h"
#include "runtime/model/gguf_tokenizer.h"

namespace krait {
namespace {

namespace fs = std::filesystem;

constexpr const char* kConfig = "config.json";
constexpr const char* kSingle = "model.safetensors";
constexpr const char* kIndex = "model.safetensors.index.json";
constexpr const char* kGguf = ".gguf";

bool is_there(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

/// Whether `name` means a file of the folder it is looked up in, and no other.
bool is_plain_name(std::string_view name) {
  constexpr std::string_view kSeparators("/\\:\0", 4);
  return !name.empty() && name != "." && name != ".." &&
         name.find_first_of(kSeparators) == std::string_view::npos;
}

Status needs_conversion(const fs::path& path) {
  return unsupported(path.string(),
                     " is a PyTorch pickle, which can run code when it is read; make a safetensors "
                     "checkpoint of it with scripts/convert_checkpoint.py");
}

/// The only .gguf file of a folder without safetensors, or why there is nothing to open.
Result<fs::path> locate_other(const fs::path& folder) {
  std::vector<fs::path> found;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error)) {
    if (entry->path().extension() == kGguf) found.push_back(entry->path());
  }
  if (!is_there(folder / kConfig) && found.size() == 1) return found.front();
  if (!is_there(folder / kConfig) && found.size() > 1)
    return invalid(folder.string(), " holds ", found.size(), " ", kGguf,
                   " files; name one, such as ", std::ranges::min(found).string());
  for (const char* name : {"pytorch_model.bin", "pytorch_model.bin.index.json"}) {
    if (is_there(folder / name)) return needs_conversion(folder / name);
  }
  return not_found(folder.string(), " holds neither ", kSingle, " nor ", kIndex, " nor one ", kGguf,
                   " file");
}

/// Whether a file of any name says that it is GGUF.
bool is_gguf(const fs::path& path) {
  if (path.extension() == kGguf) return true;
  const Result<MappedFile> file = MappedFile::open(path);
  return file.ok() && looks_like_gguf(file->bytes());
}

/// Where the tensors are: a safetensors file, an index of several, or a GGUF file.
Result<fs::path> locate(const fs::path& path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (status.type() == fs::file_type::not_found)
    return not_found("no such file or folder: ", path.string());
  if (status.type() == fs::file_type::none)
    return Status(Code::io, cat("cannot open ", path.string(), ": ", error.message()));
  if (fs::is_directory(status)) {
    for (const char* name : {kSingle, kIndex}) {
      if (is_there(path / name)) return path / name;
    }
    return locate_other(path);
  }
  const fs::path extension = path.extension();
  if (extension == ".safetensors" || is_gguf(path)) return path;
  if (extension == ".bin" || extension == ".pt" || extension == ".pth")
    return needs_conversion(path);
  return unsupported(path.string(), " is not a checkpoint Krait reads: expected a folder with ",
                     kConfig, " and ", kSingle, ", a .safetensors file, or a GGUF file");
}

/// The index's weight_map: the shard of every tensor.
Result<std::map<std::string, std::string>> read_index(const fs::path& path) {
  KRAIT_ASSIGN(const MappedFile file, MappedFile::open(path));
  KRAIT_ASSIGN(const Json index, parse_json(file.text(), path.string()));
  const auto wrong = [&](const auto&... parts) { return corrupt(path.string(), ": ", parts...); };
  if (!index.is_object()) return wrong("expected an object");
  const auto weights = index.find("weight_map");
  if (weights == index.end() || !weights->is_object())
    return wrong("expected an object weight_map, which names the file of every tensor");
  std::map<std::string, std::string> shards;
  for (const auto& [tensor, shard] : weights->items()) {
    if (!shard.is_string()) return wrong("the file of ", shown(tensor), " is not a name");
    const auto& name = shard.get_ref<const std::string&>();
    if (!is_plain_name(name))
      return wrong("the file of ", shown(tensor), " is ", shown(name),
                   ", expected the name of a file in the same folder");
    shards.emplace(tensor, name);
  }
  return shards;
}

}  // namespace

Result<std::shared_ptr<const Checkpoint>> Checkpoint::open(const fs::path& path) {
  return guarded([&]() -> Result<std::shared_ptr<const Checkpoint>> {
    KRAIT_ASSIGN(const fs::path tensors, locate(path));
    std::shared_ptr<Checkpoint> checkpoint(new Checkpoint);
    checkpoint->folder_ = tensors.has_parent_path() ? tensors.parent_path() : ".";
    if (tensors.extension() == ".safetensors") {
      KRAIT_TRY(checkpoint->read_config());
      KRAIT_TRY(checkpoint->add_file(tensors, checkpoint->tensors_));
    } else if (tensors.filename() == kIndex) {
      KRAIT_TRY(checkpoint->read_config());
      KRAIT_TRY(checkpoint->add_shards(tensors));
    } else {
      KRAIT_TRY(checkpoint->read_gguf(tensors));
    }
    KRAIT_TRY(checkpoint->finish());
    return std::shared_ptr<const Checkpoint>(std::move(checkpoint));
  });
}

Result<std::shared_ptr<const Checkpoint>> Checkpoint::from_memory(
    Json config, std::vector<CheckpointTensor> tensors, std::shared_ptr<const void> owner) {
  return guarded([&]() -> Result<std::shared_ptr<const Checkpoint>> {
    if (!config.is_object()) return invalid("the configuration is not an object");
    for (const CheckpointTensor& tensor : tensors) {
      KRAIT_TRY(check_tensor(tensor));
      if (!is_aligned(tensor))
        return invalid("tensor ", shown(tensor.name), ": not aligned to its elements");
    }
    std::shared_ptr<Checkpoint> checkpoint(new Checkpoint);
    checkpoint->config_ = std::move(config);
    checkpoint->tensors_ = std::move(tensors);
    checkpoint->owner_ = std::move(owner);
    KRAIT_TRY(checkpoint->finish());
    return std::shared_ptr<const Checkpoint>(std::move(checkpoint));
  });
}

Status Checkpoint::read_config() {
  const fs::path path = folder_ / kConfig;
  Result<MappedFile> file = MappedFile::open(path);
  if (!file.ok())
    return Status(file.status().code(),
                  cat(file.message(), "; a checkpoint needs its ", kConfig, " beside the tensors"));
  KRAIT_ASSIGN(config_, parse_json(file->text(), path.string()));
  if (!config_.is_object()) return corrupt(path.string(), ": expected an object");
  return {};
}

Status Checkpoint::read_gguf(const fs::path& path) {
  KRAIT_ASSIGN(MappedFile file, MappedFile::open(path));
  KRAIT_ASSIGN(gguf_, GgufFile::parse(file.bytes(), path.string()));
  Result<GgufModel> model = read_gguf_model(*gguf_);
  if (!model.ok()) return Status(model.status().code(), cat(path.string(), ": ", model.message()));
  config_ = std::move(model->config);
  for (CheckpointTensor& tensor : model->tensors) add_tensor(std::move(tensor), file, tensors_);
  files_.push_back(std::move(file));
  return {};
}

/// Maps a safetensors file and appends its tensors to `added`.
Status Checkpoint::add_file(const fs::path& path, std::vector<CheckpointTensor>& added) {
  KRAIT_ASSIGN(MappedFile file, MappedFile::open(path));
  KRAIT_ASSIGN(const SafetensorsFile parsed, SafetensorsFile::parse(file.bytes(), path.string()));
  for (const CheckpointTensor& tensor : parsed.tensors()) add_tensor(tensor, file, added);
  files_.push_back(std::move(file));
  return {};
}

/// Appends a tensor of `file`; if it is misaligned there, an aligned copy.
void Checkpoint::add_tensor(CheckpointTensor tensor, const MappedFile& file,
                            std::vector<CheckpointTensor>& added) {
  if (tensor.problem.empty() && !is_aligned(tensor)) {
    const auto bytes = static_cast<std::size_t>(tensor.bytes);
    // As every allocation, aligned for all element types.
    auto copy = std::make_unique_for_overwrite<std::byte[]>(bytes);
    std::memcpy(copy.get(), tensor.data, bytes);
    file.release(static_cast<std::size_t>(tensor.data - file.bytes().data()), bytes);
    tensor.data = copy.get();
    copies_.push_back(std::move(copy));
  }
  added.push_back(std::move(tensor));
}

Status Checkpoint::add_shards(const fs::path& index) {
  KRAIT_ASSIGN(const auto shard_of, read_index(index));
  std::map<std::string, std::vector<CheckpointTensor>> shards;
  for (const auto& [tensor, shard] : shard_of) {
    const auto [place, is_new] = shards.try_emplace(shard);
    if (is_new) KRAIT_TRY(add_file(folder_ / shard, place->second));
    if (!find_tensor(place->second, tensor))
      return corrupt(index.string(), ": tensor ", shown(tensor), " is not in ", shard,
                     ", where the index says it is");
  }
  for (auto& [shard, tensors] : shards) std::ranges::move(tensors, std::back_inserter(tensors_));
  return {};
}

/// Sorts the tensors, and refuses two of one name: in two shards, or made twice.
Status Checkpoint::finish() {
  std::ranges::sort(tensors_, {}, &CheckpointTensor::name);
  const auto twice = std::ranges::adjacent_find(tensors_, {}, &CheckpointTensor::name);
  if (twice != tensors_.end())
    return corrupt("the checkpoint has two tensors called ", shown(twice->name));
  return {};
}

const CheckpointTensor* Checkpoint::find(std::string_view name) const {
  return find_tensor(tensors_, name);
}

Result<const CheckpointTensor*> Checkpoint::get(std::string_view name) const {
  const CheckpointTensor* tensor = find(name);
  if (!tensor) return not_found("the checkpoint has no tensor ", shown(name));
  if (!tensor->problem.empty()) return unsupported("tensor ", shown(name), ": ", tensor->problem);
  return tensor;
}

std::int64_t Checkpoint::bytes() const {
  std::int64_t sum = 0;
  for (const CheckpointTensor& tensor : tensors_) sum += tensor.bytes;
  return sum;
}

void Checkpoint::release(const CheckpointTensor& tensor, std::int64_t offset,
                         std::int64_t bytes) const {
  if (offset < 0 || bytes < 0 || offset > tensor.bytes || bytes > tensor.bytes - offset) return;
  for (const MappedFile& file : files_) {
    const auto begin = reinterpret_cast<std::uintptr_t>(file.bytes().data());
    const auto data = reinterpret_cast<std::uintptr_t>(tensor.data);
    if (data >= begin && data - begin < file.bytes().size())
      return file.release(data - begin + static_cast<std::size_t>(offset),
                          static_cast<std::size_t>(bytes));
  }
}

Result<Tokenizer> Checkpoint::tokenizer() const {
  if (gguf_) {
    Result<Tokenizer> tokenizer = gguf_tokenizer(*gguf_);
    if (tokenizer.ok() || tokenizer.status().code() != Code::not_found) return tokenizer;
  }
  KRAIT_ASSIGN(const std::string json, read_sibling("tokenizer.json"));
  return Tokenizer::from_json(json);
}

Result<std::string> Checkpoint::read_sibling(std::string_view name) const {
  return guarded([&]() -> Result<std::string> {
    if (!is_plain_name(name)) return invalid(shown(name), " is not the plain name of a file");
    if (folder_.empty()) return not_found("no ", name, ": the checkpoint was made in memory");
    KRAIT_ASSIGN(const MappedFile file, MappedFile::open(folder_ / fs::path(name)));
    return std::string(file.text());
  });
}

}  // namespace krait
