#include "runtime/model/gguf_model.h"

#include <charconv>
#include <optional>
#include <utility>

#include "runtime/core/try.h"

namespace krait {
namespace {

constexpr std::string_view kMamba = "mamba", kMamba2 = "mamba2";
/// FalconMamba's small norms have an eps of their own, which GGUF has no key for. Every published
/// FalconMamba uses this one.
constexpr double kFalconMixerEps = 1e-6;

struct Rename {
  std::string_view gguf, name;
  std::string_view only_in = {};  ///< an architecture; empty for both
};
constexpr Rename kOutside[] = {
    {"token_embd.weight", "backbone.embeddings.weight"},
    {"output_norm.weight", "backbone.norm_f.weight"},
    {"output.weight", "lm_head.weight"},
    {"token_embd.weight", "backbone.embedding.weight"},  // mamba_ssm: only written
};
constexpr std::string_view kGgufLayer = "blk.", kLayer = "backbone.layers.";
constexpr Rename kInLayers[] = {
    {"attn_norm.weight", "norm.weight"},
    {"ssm_in.weight", "mixer.in_proj.weight"},
    {"ssm_in.bias", "mixer.in_proj.bias"},
    {"ssm_conv1d.weight", "mixer.conv1d.weight"},
    {"ssm_conv1d.bias", "mixer.conv1d.bias"},
    {"ssm_x.weight", "mixer.x_proj.weight", kMamba},
    {"ssm_dt.weight", "mixer.dt_proj.weight", kMamba},
    {"ssm_dt.bias", "mixer.dt_proj.bias", kMamba},
    {"ssm_dt.bias", "mixer.dt_bias", kMamba2},
    {"ssm_a", "mixer.A"},
    {"ssm_a", "mixer.A_log"},  // only written
    {"ssm_d", "mixer.D"},
    {"ssm_norm.weight", "mixer.norm.weight", kMamba2},
    {"ssm_out.weight", "mixer.out_proj.weight"},
    {"ssm_out.bias", "mixer.out_proj.bias"},
};

/// "blk.12.ssm_a" as {"12", "ssm_a"}.
std::optional<std::pair<std::string_view, std::string_view>> in_layer(std::string_view name,
                                                                      std::string_view prefix) {
  if (!name.starts_with(prefix)) return std::nullopt;
  name.remove_prefix(prefix.size());
  const std::size_t digits = name.find_first_not_of("0123456789");
  if (digits == 0 || digits == std::string_view::npos || name[digits] != '.') return std::nullopt;
  return std::pair(name.substr(0, digits), name.substr(digits + 1));
}

std::string krait_name(std::string_view gguf, std::string_view architecture) {
  for (const Rename& rename : kOutside) {
    if (rename.gguf == gguf) return std::string(rename.name);
  }
  if (const auto parts = in_layer(gguf, kGgufLayer)) {
    for (const Rename& rename : kInLayers) {
      if (rename.gguf == parts->second &&
          (rename.only_in.empty() || rename.only_in == architecture))
        return cat(kLayer, parts->first, ".", rename.name);
    }
  }
  return std::string(gguf);
}

/// The shape that Hugging Face gives a tensor: conv1d.weight has an axis more in the middle, and
/// what Mamba-2 has once per head or channel has one axis.
Shape krait_shape(std::string_view name, const Shape& shape, std::string_view architecture) {
  if (shape.rank() != 2) return shape;
  if (name.ends_with("conv1d.weight")) return {shape[0], 1, shape[1]};
  const bool is_vector =
      name.ends_with("mixer.A") || name.ends_with("mixer.D") || name.ends_with("mixer.norm.weight");
  if (architecture == kMamba2 && is_vector) return {shape.elements()};
  return shape;
}

/// 1e-5 for the float that is nearest to it, instead of 9.9999997e-06.
double shortest(double value) {
  const auto single = static_cast<float>(value);
  if (static_cast<double>(single) != value) return value;
  char text[32];
  const auto end = std::to_chars(text, text + sizeof text, single).ptr;
  std::from_chars(text, end, value);
  return value;
}

/// The file's metadata as a config.json.
class Config {
 public:
  Config(const GgufFile& file, std::string_view architecture)
      : file_(file), architecture_(architecture) {}

  Status copy_whole(std::string_view key, const char* to) {
    const GgufValue* value = file_.value(full(key));
    if (!value) return {};
    const auto number = value->whole_number();
    if (!number) return corrupt("key ", full(key), ": expected a whole number");
    config_[to] = *number;
    return {};
  }
  Status copy_number(std::string_view key, const char* to) {
    const GgufValue* value = file_.value(full(key));
    if (!value) return {};
    const auto number = value->number();
    if (!number) return corrupt("key ", full(key), ": expected a number");
    config_[to] = shortest(*number);
    return {};
  }
  Result<bool> flag(std::string_view key) const {
    const GgufValue* value = file_.value(full(key));
    if (!value) return false;
    const auto flag = value->boolean();
    if (!flag) return corrupt("key ", full(key), ": expected true or false");
    return *flag;
  }
  Json& json() { return config_; }

 private:
  /// Keys that begin with a dot belong to the architecture.
  std::string full(std::string_view key) const {
    return key.starts_with('.') ? cat(architecture_, key) : std::string(key);
  }

  const GgufFile& file_;
  std::string_view architecture_;
  Json config_ = Json::object();
};

Result<Json> read_config(const GgufFile& file, std::string_view architecture) {
  Config config(file, architecture);
  KRAIT_TRY(config.copy_whole(".embedding_length", "hidden_size"));
  KRAIT_TRY(config.copy_whole(".block_count", "num_hidden_layers"));
  KRAIT_TRY(config.copy_whole(".ssm.inner_size", "intermediate_size"));
  KRAIT_TRY(config.copy_whole(".ssm.state_size", "state_size"));
  KRAIT_TRY(config.copy_whole(".ssm.conv_kernel", "conv_kernel"));
  KRAIT_TRY(config.copy_number(".attention.layer_norm_rms_epsilon", "layer_norm_epsilon"));
  KRAIT_TRY(config.copy_whole("tokenizer.ggml.bos_token_id", "bos_token_id"));
  KRAIT_TRY(config.copy_whole("tokenizer.ggml.eos_token_id", "eos_token_id"));
  if (architecture == kMamba2) {
    KRAIT_TRY(config.copy_whole(".ssm.time_step_rank", "num_heads"));
    KRAIT_TRY(config.copy_whole(".ssm.group_count", "n_groups"));
    config.json()["model_type"] = "mamba2";
    return config.json();
  }
  KRAIT_TRY(config.copy_whole(".ssm.time_step_rank", "time_step_rank"));
  KRAIT_ASSIGN(const bool has_small_norms, config.flag(".ssm.dt_b_c_rms"));
  config.json()["model_type"] = has_small_norms ? "falcon_mamba" : "mamba";
  if (has_small_norms) {
    config.json()["mixer_rms_eps"] = kFalconMixerEps;
    KRAIT_TRY(config.copy_number("krait.mixer_rms_eps", "mixer_rms_eps"));
  }
  return config.json();
}

}  // namespace

Result<GgufModel> read_gguf_model(const GgufFile& file) {
  return guarded([&]() -> Result<GgufModel> {
    const GgufValue* value = file.value("general.architecture");
    const auto architecture = value ? value->text() : std::nullopt;
    if (!architecture) return corrupt("there is no text general.architecture");
    if (*architecture != kMamba && *architecture != kMamba2)
      return unsupported("architecture ", shown(*architecture),
                         "; of GGUF files Krait reads mamba (FalconMamba too) and mamba2");
    if (const GgufValue* split = file.value("split.count");
        split && split->whole_number().value_or(1) > 1)
      return unsupported("it is one of several parts; join them with llama-gguf-split --merge");
    GgufModel model;
    KRAIT_ASSIGN(model.config, read_config(file, *architecture));
    for (NamedTensor tensor : file.tensors()) {
      tensor.name = krait_name(tensor.name, *architecture);
      if (tensor.problem.empty())
        tensor.shape = krait_shape(tensor.name, tensor.shape, *architecture);
      model.tensors.push_back(std::move(tensor));
    }
    return model;
  });
}

std::string gguf_tensor_name(std::string_view name) {
  for (const Rename& rename : kOutside) {
    if (rename.name == name) return std::string(rename.gguf);
  }
  if (const auto parts = in_layer(name, kLayer)) {
    for (const Rename& rename : kInLayers) {
      if (rename.name == parts->second && rename.only_in != kMamba2)
        return cat(kGgufLayer, parts->first, ".", rename.gguf);
    }
  }
  return {};
}

}  // namespace krait
