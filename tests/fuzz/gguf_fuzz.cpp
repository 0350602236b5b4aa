// Any bytes as a GGUF file: an error, or metadata and tensors that lie in the file; then as a model
// with a configuration and a tokenizer.
#include <cstddef>
#include <cstdint>

#include "runtime/core/blocks.h"
#include "runtime/model/checkpoint.h"
#include "runtime/model/config.h"
#include "runtime/model/gguf.h"
#include "runtime/model/gguf_model.h"
#include "runtime/model/gguf_tokenizer.h"
#include "tests/fuzz/require.h"

namespace {

using krait::test::require;

template <class Outcome>
void require_message(const Outcome& outcome) {
  // Messages quote names from the file, shortened; a key of a list of kinds makes the longest.
  require(!outcome.message().empty() && outcome.message().size() < 1000);
  require(outcome.status().code() != krait::Code::internal);
}

/// Reads a value in every way there is.
void read(const krait::GgufValue& value) {
  const bool is_array = value.type == krait::GgufType::array;
  require(!(value.whole_number() && value.text()));
  if (value.whole_number()) require(value.number().has_value());
  (void)value.boolean();
  for (const bool fits : {value.texts() && value.texts()->size() == value.count,
                          value.whole_numbers() && value.whole_numbers()->size() == value.count,
                          value.numbers() && value.numbers()->size() == value.count}) {
    require(!fits || is_array);
  }
}

void use(const krait::GgufFile& file) {
  const auto tokenizer = krait::gguf_tokenizer(file);
  if (tokenizer.ok()) {
    const auto ids = tokenizer->encode("Hello, w\xc3\xb6rld 123!", {.add_special = true});
    if (ids.ok()) require(tokenizer->decode(*ids).ok());
  } else {
    require_message(tokenizer);
  }
  auto model = krait::read_gguf_model(file);
  if (!model.ok()) return require_message(model);
  for (const krait::NamedTensor& tensor : model->tensors) {
    if (!tensor.problem.empty() || !krait::is_aligned(tensor)) return;
  }
  const auto checkpoint =
      krait::Checkpoint::from_memory(std::move(model->config), std::move(model->tensors), nullptr);
  if (!checkpoint.ok()) return require_message(checkpoint);
  const auto config = krait::parse_mamba_config((*checkpoint)->config(), **checkpoint);
  if (!config.ok()) require_message(config);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  const auto file = krait::GgufFile::parse(bytes, "input");
  if (!file.ok()) {
    require_message(file);
    require(file.message().starts_with("input: "));
    return 0;
  }
  for (const auto& [key, value] : file->metadata()) read(value);
  const krait::NamedTensor* before = nullptr;
  std::int64_t total = 0;
  for (const krait::NamedTensor& tensor : file->tensors()) {
    require(!before || before->name < tensor.name);
    require(file->find(tensor.name) == &tensor);
    before = &tensor;
    if (!tensor.problem.empty()) continue;
    require(krait::check_tensor(tensor).ok());
    total += tensor.bytes;
    if (tensor.bytes == 0) continue;
    // Reading every byte lets the sanitizer judge the offsets.
    unsigned sum = 0;
    for (std::int64_t i = 0; i < tensor.bytes; ++i) sum += static_cast<unsigned>(tensor.data[i]);
    volatile unsigned kept = sum;
    (void)kept;
    if (krait::is_block(tensor.dtype)) {
      std::vector<float> values(static_cast<std::size_t>(tensor.shape.elements()));
      krait::dequantize(tensor.dtype, tensor.data, values);
    }
  }
  require(total >= 0 && total <= static_cast<std::int64_t>(size));
  use(*file);
  return 0;
}
