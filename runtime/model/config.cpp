#include "runtime/model/config.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <set>
#include <utility>

#include "runtime/core/try.h"

namespace krait {
namespace {

/// A value of the file, for messages: JSON in quotes, but no text in two pairs of them.
std::string shown_value(const Json& value) {
  return shown(value.is_string() ? value.get<std::string>() : value.dump());
}

constexpr std::int64_t kMaxExtent = std::int64_t{1} << 24;
constexpr std::string_view kLayers = "backbone.layers.";

/// The configuration's values, checked one by one. A key with null counts as absent.
class Fields {
 public:
  explicit Fields(const Json& object) : object_(object) {}

  const Json* find(const char* key) const {
    const auto place = object_.find(key);
    return place == object_.end() || place->is_null() ? nullptr : &*place;
  }
  Result<std::optional<std::int64_t>> extent(const char* key) const {
    const Json* value = find(key);
    if (!value) return std::optional<std::int64_t>();
    const std::optional<std::int64_t> extent = whole_number(*value);
    if (!extent || *extent < 1 || *extent > kMaxExtent)
      return wrong(key, cat("a whole number from 1 to ", kMaxExtent), *value);
    return extent;
  }
  Result<double> number_or(const char* key, double otherwise) const {
    const Json* value = find(key);
    if (!value) return otherwise;
    const std::optional<double> parsed = number(*value);
    if (!parsed || !(*parsed >= 0 && *parsed <= kMaxExtent))
      return wrong(key, cat("a number from 0 to ", kMaxExtent), *value);
    return *parsed;
  }
  Result<bool> boolean_or(const char* key, bool otherwise) const {
    const Json* value = find(key);
    if (!value) return otherwise;
    if (!value->is_boolean()) return wrong(key, "true or false", *value);
    return value->get<bool>();
  }

  static Status wrong(const char* key, std::string_view expected, const Json& got) {
    return corrupt("configuration: ", key, ": expected ", expected, ", got ", shown_value(got));
  }

 private:
  const Json& object_;
};

/// What a layout calls the extents; the original one keeps those of the mixer in "ssm_cfg".
struct Keys {
  const char* d_model;
  const char* n_layer;
  const char* d_state;
  const char* d_conv;
  const char* dt_rank;
  const char* norm_eps;
};
constexpr Keys kHuggingFace = {"hidden_size", "num_hidden_layers", "state_size",
                               "conv_kernel", "time_step_rank",    "layer_norm_epsilon"};
constexpr Keys kOriginal = {"d_model", "n_layer", "d_state", "d_conv", "dt_rank", "norm_epsilon"};

bool is_original(const Json& config) {
  return !Fields(config).find("model_type") && config.contains("d_model") &&
         config.contains("n_layer");
}

/// The mixer's part of the configuration.
Result<Json> mixer_fields(const Json& config) {
  if (!is_original(config)) return config;
  const Json* fields = Fields(config).find("ssm_cfg");
  if (!fields) return Json::object();
  if (!fields->is_object()) return Fields::wrong("ssm_cfg", "an object", *fields);
  return *fields;
}

/// What mamba_ssm can express and this family is not.
Status check_original(const Json& config) {
  const Fields fields(config);
  KRAIT_ASSIGN(const Json mixer, mixer_fields(config));
  if (const Json* layer = Fields(mixer).find("layer"); layer && *layer != "Mamba1")
    return unsupported("configuration: ssm_cfg.layer is ", shown_value(*layer),
                       "; of the mamba_ssm layout Krait knows Mamba1");
  if (const Json* layers = fields.find("attn_layer_idx"); layers && !layers->empty())
    return unsupported(
        "configuration: attn_layer_idx names attention layers, which this family "
        "does not have");
  if (const Json* width = fields.find("d_intermediate"); width && *width != 0)
    return unsupported("configuration: d_intermediate is ", shown_value(*width),
                       ": MLP layers, which this family does not have");
  KRAIT_ASSIGN(const bool rms_norm, fields.boolean_or("rms_norm", true));
  if (!rms_norm) return unsupported("configuration: rms_norm is false; only RMS norm is supported");
  return {};
}

/// Looks tensors up by name and shape, and knows in the end which ones nobody asked for.
class Tensors {
 public:
  explicit Tensors(const Checkpoint& checkpoint) : checkpoint_(checkpoint) {}

  bool has(const std::string& name) const { return checkpoint_.find(name) != nullptr; }

  /// The extents of a tensor that must be there, with `rank` of them.
  Result<Shape> shape(const std::string& name, int rank) const {
    KRAIT_ASSIGN(const CheckpointTensor* tensor, checkpoint_.get(name));
    const Shape& shape = tensor->shape;
    if (shape.rank() != rank)
      return corrupt("tensor ", name, ": expected ", rank, " dimensions, got ", to_string(shape));
    for (const Dim& dim : shape.span()) {
      if (dim.value < 1 || dim.value > kMaxExtent)
        return corrupt("tensor ", name, ": ", to_string(shape), " has an extent outside 1 to ",
                       kMaxExtent);
    }
    return shape;
  }
  Status require(const std::string& name, const Shape& expected) {
    KRAIT_ASSIGN(const CheckpointTensor* tensor, checkpoint_.get(name));
    return require(*tensor, expected, false);
  }
  /// The same for a tensor that may be of a block type: only `linear` and `embedding` read it.
  Status require_matrix(const std::string& name, const Shape& expected) {
    KRAIT_ASSIGN(const CheckpointTensor* tensor, checkpoint_.get(name));
    return require(*tensor, expected, true);
  }
  /// The same for a tensor that some layers' models have and others do not.
  Status require_if(bool present, const std::string& name, const Shape& expected) {
    if (present) return require(name, expected);
    if (has(name)) return corrupt("tensor ", name, ": layer 0 has none, so no layer may have one");
    return {};
  }
  /// A tensor that is ignored makes other results, so it must not be there.
  Status refuse_others(Family family) const {
    for (const CheckpointTensor& tensor : checkpoint_.tensors()) {
      if (!required_.contains(tensor.name))
        return unsupported("tensor ", shown(tensor.name), " is not part of a ", name(family),
                           " model as Krait knows it");
    }
    return {};
  }
  /// One more than the highest number of a layer in the tensors' names.
  std::int64_t layers() const {
    std::int64_t count = 0;
    for (const CheckpointTensor& tensor : checkpoint_.tensors()) {
      if (!tensor.name.starts_with(kLayers)) continue;
      const char* begin = tensor.name.data() + kLayers.size();
      std::int64_t layer = -1;
      std::from_chars(begin, tensor.name.data() + tensor.name.size(), layer);
      if (layer >= 0 && layer < kMaxExtent) count = std::max(count, layer + 1);
    }
    return count;
  }

 private:
  Status require(const CheckpointTensor& tensor, const Shape& expected, bool is_matrix) {
    if (tensor.shape != expected)
      return corrupt("tensor ", tensor.name, ": expected ", to_string(expected), ", got ",
                     to_string(tensor.shape));
    const DType type = tensor.dtype;
    const bool is_plain = type == DType::f32 || type == DType::f16 || type == DType::bf16;
    if (!is_plain && !(is_matrix && is_block(type)))
      return unsupported("tensor ", tensor.name, ": expected f32, f16 or bf16",
                         is_matrix ? " elements or quantised blocks" : " elements", ", got ",
                         krait::name(type));
    required_.insert(tensor.name);
    return {};
  }

  const Checkpoint& checkpoint_;
  std::set<std::string> required_;
};

/// The configuration may leave an extent out, but must not contradict the tensors.
Status agree(const Fields& fields, const char* key, std::int64_t found, std::string_view where) {
  KRAIT_ASSIGN(const std::optional<std::int64_t> said, fields.extent(key));
  if (said && *said != found)
    return corrupt("configuration: ", key, " is ", *said, ", but ", where, " gives ", found);
  return {};
}

/// dt_rank may be "auto": ceil(d_model / 16).
Status agree_dt_rank(const Fields& fields, const char* key, const MambaConfig& model) {
  const Json* value = fields.find(key);
  if (!value || *value != "auto") return agree(fields, key, model.dt_rank, "mixer.dt_proj.weight");
  const std::int64_t automatic = (model.d_model + 15) / 16;
  if (automatic != model.dt_rank)
    return corrupt("configuration: ", key, " is \"auto\", which means ", automatic,
                   ", but mixer.dt_proj.weight gives ", model.dt_rank);
  return {};
}

/// d_inner is given as such, or as a multiple of d_model.
Status agree_d_inner(const Fields& fields, const MambaConfig& model) {
  if (fields.find("intermediate_size"))
    return agree(fields, "intermediate_size", model.d_inner, "mixer." + model.a_name);
  if (!fields.find("expand")) return {};
  KRAIT_ASSIGN(const double expand, fields.number_or("expand", 0));
  const double said = std::floor(expand * static_cast<double>(model.d_model));
  if (said != static_cast<double>(model.d_inner))
    return corrupt("configuration: expand is ", expand, ", which makes d_inner ", said,
                   ", but mixer.", model.a_name, " gives ", model.d_inner);
  return {};
}

/// The rows of the embedding: vocab_size, which the original layout rounds up to a multiple.
Status agree_vocab_size(const Fields& fields, bool original, const MambaConfig& model) {
  if (!original) return agree(fields, "vocab_size", model.vocab_size, model.embedding);
  KRAIT_ASSIGN(const auto said, fields.extent("vocab_size"));
  KRAIT_ASSIGN(const auto multiple, fields.extent("pad_vocab_size_multiple"));
  const std::int64_t unit = multiple.value_or(8);  // as mamba_ssm has it
  if (said && (*said + unit - 1) / unit * unit != model.vocab_size)
    return corrupt("configuration: vocab_size is ", *said, ", padded to a multiple of ", unit,
                   ", but ", model.embedding, " has ", model.vocab_size, " rows");
  return {};
}

Result<std::vector<std::int64_t>> token_ids(const Fields& fields, const char* key,
                                            std::int64_t vocab_size) {
  std::vector<std::int64_t> ids;
  const Json* value = fields.find(key);
  if (!value) return ids;
  for (const Json& entry : value->is_array() ? *value : Json::array({*value})) {
    const std::optional<std::int64_t> id = whole_number(entry);
    if (!id || *id < 0 || *id >= vocab_size)
      return Fields::wrong(key, cat("ids from 0 to ", vocab_size - 1), *value);
    ids.push_back(*id);
  }
  return ids;
}

/// Reads the extents from the shapes of the embedding and the first layer.
Status read_extents(const Tensors& tensors, MambaConfig& model) {
  model.embedding = "backbone.embeddings.weight";
  if (!tensors.has(model.embedding) && tensors.has("backbone.embedding.weight"))
    model.embedding = "backbone.embedding.weight";
  KRAIT_ASSIGN(const Shape embedding, tensors.shape(model.embedding, 2));
  model.vocab_size = embedding[0].value;
  model.d_model = embedding[1].value;
  model.n_layer = tensors.layers();
  if (model.n_layer == 0) return corrupt("the checkpoint has no tensors ", kLayers, "0.*");
  const std::string mixer = cat(kLayers, "0.mixer.");
  if (tensors.has(mixer + "A")) model.a_name = "A";
  KRAIT_ASSIGN(const Shape a, tensors.shape(mixer + model.a_name, 2));
  model.d_inner = a[0].value;
  model.d_state = a[1].value;
  KRAIT_ASSIGN(const Shape conv, tensors.shape(mixer + "conv1d.weight", 3));
  model.d_conv = conv[2].value;
  KRAIT_ASSIGN(const Shape dt_proj, tensors.shape(mixer + "dt_proj.weight", 2));
  model.dt_rank = dt_proj[1].value;
  model.conv_bias = tensors.has(mixer + "conv1d.bias");
  model.in_proj_bias = tensors.has(mixer + "in_proj.bias");
  model.out_proj_bias = tensors.has(mixer + "out_proj.bias");
  model.tied_head = !tensors.has("lm_head.weight");
  return {};
}

Status check_tensors(Tensors& tensors, const MambaConfig& model) {
  const std::int64_t d = model.d_model, di = model.d_inner, n = model.d_state;
  KRAIT_TRY(tensors.require_matrix(model.embedding, {model.vocab_size, d}));
  KRAIT_TRY(tensors.require("backbone.norm_f.weight", {d}));
  if (!model.tied_head) KRAIT_TRY(tensors.require_matrix("lm_head.weight", {model.vocab_size, d}));
  for (std::int64_t i = 0; i < model.n_layer; ++i) {
    const std::string layer = cat(kLayers, i, ".");
    const std::string mixer = layer + "mixer.";
    KRAIT_TRY(tensors.require(layer + "norm.weight", {d}));
    KRAIT_TRY(tensors.require_matrix(mixer + "in_proj.weight", {2 * di, d}));
    KRAIT_TRY(tensors.require_if(model.in_proj_bias, mixer + "in_proj.bias", {2 * di}));
    KRAIT_TRY(tensors.require(mixer + "conv1d.weight", {di, 1, model.d_conv}));
    KRAIT_TRY(tensors.require_if(model.conv_bias, mixer + "conv1d.bias", {di}));
    KRAIT_TRY(tensors.require_matrix(mixer + "x_proj.weight", {model.dt_rank + 2 * n, di}));
    KRAIT_TRY(tensors.require_matrix(mixer + "dt_proj.weight", {di, model.dt_rank}));
    KRAIT_TRY(tensors.require(mixer + "dt_proj.bias", {di}));
    KRAIT_TRY(tensors.require(mixer + model.a_name, {di, n}));
    KRAIT_TRY(tensors.require(mixer + "D", {di}));
    KRAIT_TRY(tensors.require_matrix(mixer + "out_proj.weight", {d, di}));
    KRAIT_TRY(tensors.require_if(model.out_proj_bias, mixer + "out_proj.bias", {d}));
  }
  return tensors.refuse_others(model.family);
}

Status check_agreement(const Json& config, const MambaConfig& model) {
  const bool original = is_original(config);
  const Keys& keys = original ? kOriginal : kHuggingFace;
  const Fields fields(config);
  KRAIT_ASSIGN(const Json mixer_config, mixer_fields(config));
  const Fields mixer(mixer_config);
  KRAIT_TRY(agree(fields, keys.d_model, model.d_model, model.embedding));
  KRAIT_TRY(agree(fields, keys.n_layer, model.n_layer, "the number of layers in the tensors"));
  KRAIT_TRY(agree(mixer, keys.d_state, model.d_state, "mixer." + model.a_name));
  KRAIT_TRY(agree(mixer, keys.d_conv, model.d_conv, "mixer.conv1d.weight"));
  KRAIT_TRY(agree_dt_rank(mixer, keys.dt_rank, model));
  KRAIT_TRY(agree_d_inner(mixer, model));
  return agree_vocab_size(fields, original, model);
}

/// What no tensor can tell.
Status read_values(const Json& config, MambaConfig& model) {
  const Fields fields(config);
  const Keys& keys = is_original(config) ? kOriginal : kHuggingFace;
  if (const Json* activation = fields.find("hidden_act");
      activation && *activation != "silu" && *activation != "swish")
    return unsupported("configuration: hidden_act is ", shown_value(*activation),
                       "; only silu is supported");
  KRAIT_ASSIGN(model.norm_eps, fields.number_or(keys.norm_eps, 1e-5));
  if (model.family == Family::falcon_mamba) {
    KRAIT_ASSIGN(model.mixer_rms_eps, fields.number_or("mixer_rms_eps", 1e-6));
  }
  KRAIT_ASSIGN(model.residual_in_fp32, fields.boolean_or("residual_in_fp32", true));
  KRAIT_ASSIGN(const auto bos, token_ids(fields, "bos_token_id", model.vocab_size));
  if (!bos.empty()) model.bos_id = bos.front();
  KRAIT_ASSIGN(model.eos_ids, token_ids(fields, "eos_token_id", model.vocab_size));
  return {};
}

}  // namespace

std::string_view name(Family family) {
  switch (family) {
    case Family::mamba:
      return "mamba";
    case Family::falcon_mamba:
      return "falcon_mamba";
  }
  return "unknown";
}

Result<Family> family_of(const Json& config) {
  return guarded([&]() -> Result<Family> {
    constexpr std::string_view kKnown =
        "Krait knows mamba, falcon_mamba, and Mamba1 in the layout of mamba_ssm";
    if (!config.is_object()) return corrupt("configuration: expected an object");
    const Json* type = Fields(config).find("model_type");
    if (!type && is_original(config)) {
      KRAIT_TRY(check_original(config));
      return Family::mamba;
    }
    if (!type)
      return unsupported("configuration: there is neither model_type nor d_model with n_layer; ",
                         kKnown);
    for (const Family family : {Family::mamba, Family::falcon_mamba}) {
      if (*type == name(family)) return family;
    }
    return unsupported("configuration: model_type is ", shown_value(*type), "; ", kKnown);
  });
}

Result<MambaConfig> parse_mamba_config(const Json& config, const Checkpoint& checkpoint) {
  return guarded([&]() -> Result<MambaConfig> {
    MambaConfig model;
    KRAIT_ASSIGN(model.family, family_of(config));
    Tensors tensors(checkpoint);
    KRAIT_TRY(read_extents(tensors, model));
    KRAIT_TRY(check_agreement(config, model));
    KRAIT_TRY(read_values(config, model));
    KRAIT_TRY(check_tensors(tensors, model));
    return model;
  });
}

}  // namespace krait
