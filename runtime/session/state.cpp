#include "runtime/session/state.h"

#include <charconv>
#include <cstring>

#include "runtime/core/json.h"
#include "runtime/core/try.h"
#include "runtime/model/mapped_file.h"
#include "runtime/model/safetensors.h"
#include "runtime/session/program.h"

namespace krait {
namespace {

constexpr std::string_view kFormat = "krait state 1";

Result<std::int64_t> metadata_number(const Metadata& metadata, const std::string& key,
                                     std::string_view file) {
  const auto found = metadata.find(key);
  if (found == metadata.end()) return corrupt(file, ": the state's metadata has no ", key);
  // Room to count on from there for ever.
  constexpr std::int64_t kMost = std::int64_t{1} << 53;
  std::int64_t value = 0;
  const std::string& text = found->second;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < 0 || value > kMost) {
    return corrupt(file, ": ", key, ": expected a number from 0 to ", kMost, ", got ", text);
  }
  return value;
}

}  // namespace

std::vector<StateTensor> state_tensors(const Program& program) {
  std::vector<StateTensor> result;
  for (const ir::Value& value : program.impl().ir->values) {
    if (value.kind != ir::Kind::state) continue;
    StateTensor tensor;
    tensor.name = value.name;
    tensor.shape = Shape(value.type.shape.span().subspan(1));
    tensor.bytes = bytes_of(value.type.dtype, tensor.shape.elements());
    result.push_back(std::move(tensor));
  }
  return result;
}

std::int64_t State::position() const {
  return impl_->position;
}
std::span<const std::int32_t> State::tokens() const {
  return impl_->tokens;
}

std::int64_t State::bytes() const {
  std::int64_t total = 0;
  for (const StateTensor& tensor : state_tensors(impl_->program)) total += tensor.bytes;
  return total;
}

Status State::save(const std::filesystem::path& path) const {
  return guarded([&]() -> Status {
    KRAIT_ASSIGN(const std::string fingerprint, impl_->program.model().fingerprint());
    const std::vector<StateTensor> layout = state_tensors(impl_->program);
    Device& device = *impl_->program.impl().device;
    std::vector<std::vector<float>> memory;
    std::vector<NamedTensor> tensors;
    for (std::size_t i = 0; i < layout.size(); ++i) {
      memory.emplace_back(static_cast<std::size_t>(layout[i].bytes / 4));
      KRAIT_TRY(device.download(*impl_->tensors[i], 0, memory.back().data(), layout[i].bytes));
      tensors.push_back({layout[i].name,
                         DType::f32,
                         layout[i].shape,
                         reinterpret_cast<const std::byte*>(memory.back().data()),
                         layout[i].bytes,
                         {}});
    }
    if (!impl_->tokens.empty()) {
      const auto count = static_cast<std::int64_t>(impl_->tokens.size());
      tensors.push_back({"tokens",
                         DType::i32,
                         {count},
                         reinterpret_cast<const std::byte*>(impl_->tokens.data()),
                         count * 4,
                         {}});
    }
    return write_safetensors(path, tensors,
                             {{"format", std::string(kFormat)},
                              {"architecture", impl_->program.model().info().architecture},
                              {"model", fingerprint},
                              {"position", std::to_string(impl_->position)}});
  });
}

Result<State> parse_state(std::span<const std::byte> bytes, const std::string& what,
                          const Program& program, bool any_model) {
  KRAIT_ASSIGN(const SafetensorsFile file, SafetensorsFile::parse(bytes, what));
  const Metadata& metadata = file.metadata();
  const auto format = metadata.find("format");
  if (format == metadata.end() || format->second != kFormat) {
    return corrupt(what, ": expected a state file (metadata format \"", kFormat, "\"), got ",
                   format == metadata.end() ? "none" : format->second);
  }
  KRAIT_ASSIGN(const std::string fingerprint, program.model().fingerprint());
  const auto model = metadata.find("model");
  if (!any_model && (model == metadata.end() || model->second != fingerprint)) {
    return invalid(what, ": this state belongs to another model (",
                   model == metadata.end() ? "unknown" : model->second, ", this one is ",
                   fingerprint,
                   "); load the model that made it, or ask for any model if "
                   "it is a quantised sibling");
  }
  auto impl = std::make_shared<State::Impl>(program);
  KRAIT_ASSIGN(impl->position, metadata_number(metadata, "position", what));
  std::size_t expected = 0;
  for (const StateTensor& want : state_tensors(program)) {
    const NamedTensor* have = file.find(want.name);
    if (!have) return corrupt(what, ": tensor ", want.name, " is missing");
    if (!have->problem.empty()) return corrupt(what, ": tensor ", want.name, ": ", have->problem);
    if (have->dtype != DType::f32 || have->shape != want.shape) {
      return corrupt(what, ": tensor ", want.name, ": expected f32", to_string(want.shape),
                     ", got ", name(have->dtype), to_string(have->shape));
    }
    KRAIT_ASSIGN(std::unique_ptr<Buffer> buffer, program.impl().device->allocate(want.bytes));
    KRAIT_TRY(program.impl().device->upload(have->data, *buffer, 0, want.bytes));
    impl->tensors.push_back(std::move(buffer));
    ++expected;
  }
  if (const NamedTensor* tokens = file.find("tokens")) {
    if (!tokens->problem.empty() || tokens->dtype != DType::i32 || tokens->shape.rank() != 1) {
      return corrupt(what, ": tokens: expected i32 in one dimension");
    }
    impl->tokens.resize(static_cast<std::size_t>(tokens->shape[0].value));
    if (tokens->bytes)
      std::memcpy(impl->tokens.data(), tokens->data, static_cast<std::size_t>(tokens->bytes));
    if (tokens->shape[0].value != impl->position) {
      return corrupt(what, ": tokens: expected as many as the position, ", impl->position, ", got ",
                     tokens->shape[0].value);
    }
    // An embedder's graph has no vocabulary.
    const std::int64_t vocab = program.model().info().vocab_size;
    for (std::size_t t = 0; vocab > 0 && t < impl->tokens.size(); ++t) {
      if (impl->tokens[t] < 0 || impl->tokens[t] >= vocab) {
        return corrupt(what, ": tokens[", t, "]: expected an id from 0 to ", vocab - 1, ", got ",
                       impl->tokens[t]);
      }
    }
    ++expected;
  }
  if (file.tensors().size() != expected) {
    return corrupt(what, ": expected ", expected, " tensors, got ", file.tensors().size());
  }
  return State(std::move(impl));
}

Result<State> State::load(const std::filesystem::path& path, const Program& program,
                          bool any_model) {
  return guarded([&]() -> Result<State> {
    KRAIT_ASSIGN(const MappedFile mapped, MappedFile::open(path));
    return parse_state(mapped.bytes(), path.string(), program, any_model);
  });
}

}  // namespace krait
