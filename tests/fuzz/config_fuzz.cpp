// A configuration and a list of tensors, as JSON: {"config": {...}, "tensors": {"a.b": ["f32", 2,
// 3]}}. An error, or a configuration whose extents are those of the tensors.
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "runtime/model/config.h"
#include "tests/fuzz/require.h"

namespace {

using krait::test::require;

std::vector<krait::CheckpointTensor> read_tensors(const krait::Json& list) {
  std::vector<krait::CheckpointTensor> tensors;
  if (!list.is_object()) return tensors;
  for (const auto& [name, entry] : list.items()) {
    krait::CheckpointTensor tensor;
    tensor.name = name;
    std::vector<std::int64_t> dims;
    for (const krait::Json& part : entry) {
      if (part.is_string()) {
        const auto dtype = krait::parse_dtype(part.get_ref<const std::string&>());
        tensor.dtype = dtype.value_or(krait::DType::u8);
      } else {
        dims.push_back(krait::whole_number(part).value_or(1));
      }
    }
    tensor.shape = krait::Shape(std::span<const std::int64_t>(dims));
    const std::int64_t elements = tensor.shape.invalid() ? -1 : tensor.shape.elements();
    // What does not fit is left to the checks of from_memory.
    if (elements >= 0 && elements < std::int64_t{1} << 59)
      tensor.bytes = krait::bytes_of(tensor.dtype, elements);
    tensors.push_back(std::move(tensor));
  }
  return tensors;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto input = krait::parse_json(text, "input");
  if (!input.ok() || !input->is_object() || !input->contains("config")) return 0;
  const krait::Json tensors = input->value("tensors", krait::Json::object());
  const auto checkpoint =
      krait::Checkpoint::from_memory((*input)["config"], read_tensors(tensors), nullptr);
  if (!checkpoint.ok()) {
    require(checkpoint.status().code() != krait::Code::internal);
    return 0;
  }
  const auto config = krait::parse_mamba_config((*checkpoint)->config(), **checkpoint);
  if (!config.ok()) {
    require(config.status().code() != krait::Code::internal && config.message().size() < 1000);
    return 0;
  }
  for (const std::int64_t extent :
       {config->d_model, config->d_inner, config->d_state, config->d_conv, config->dt_rank,
        config->n_layer, config->vocab_size})
    require(extent >= 1 && extent <= std::int64_t{1} << 24);
  const auto a_log = (*checkpoint)->get("backbone.layers.0.mixer.A_log");
  require(a_log.ok() && (*a_log)->shape == krait::Shape({config->d_inner, config->d_state}));
  for (const std::int64_t id : config->eos_ids) require(id >= 0 && id < config->vocab_size);
  return 0;
}
