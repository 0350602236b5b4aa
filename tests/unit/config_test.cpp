#include "runtime/model/config.h"

#include <cmath>
#include <gtest/gtest.h>
#include <map>
#include <string>
#include <vector>

#include "runtime/core/try.h"
#include "tests/helpers/files.h"

namespace krait {
namespace {

/// A tiny model in memory, which tests spoil in one place at a time.
struct Model {
  Json config = {{"model_type", "mamba"},
                 {"hidden_size", 32},
                 {"num_hidden_layers", 2},
                 {"state_size", 8},
                 {"conv_kernel", 4},
                 {"time_step_rank", "auto"},
                 {"expand", 2},
                 {"intermediate_size", 64},
                 {"vocab_size", 100},
                 {"layer_norm_epsilon", 1e-6},
                 {"hidden_act", "silu"},
                 {"residual_in_fp32", true},
                 {"bos_token_id", 1},
                 {"eos_token_id", 2}};
  std::map<std::string, Shape> shapes;
  std::map<std::string, DType> dtypes;  // those that are not bf16

  Model() {
    shapes["backbone.embeddings.weight"] = {100, 32};
    shapes["backbone.norm_f.weight"] = {32};
    for (int i = 0; i < 2; ++i) {
      const std::string layer = cat("backbone.layers.", i, ".");
      shapes[layer + "norm.weight"] = {32};
      shapes[layer + "mixer.in_proj.weight"] = {128, 32};
      shapes[layer + "mixer.conv1d.weight"] = {64, 1, 4};
      shapes[layer + "mixer.x_proj.weight"] = {18, 64};
      shapes[layer + "mixer.dt_proj.weight"] = {64, 2};
      shapes[layer + "mixer.dt_proj.bias"] = {64};
      shapes[layer + "mixer.A_log"] = {64, 8};
      shapes[layer + "mixer.D"] = {64};
      shapes[layer + "mixer.out_proj.weight"] = {32, 64};
    }
  }

  /// The same model in the layout of mamba_ssm.
  static Model original() {
    Model model;
    model.config = {{"d_model", 32},          {"n_layer", 2},
                    {"vocab_size", 97},       {"ssm_cfg", Json::object()},
                    {"rms_norm", true},       {"residual_in_fp32", true},
                    {"fused_add_norm", true}, {"pad_vocab_size_multiple", 4}};
    model.shapes["backbone.embedding.weight"] = {100, 32};
    model.shapes.erase("backbone.embeddings.weight");
    return model;
  }

  Result<MambaConfig> parse() const {
    std::vector<CheckpointTensor> tensors;
    for (const auto& [name, shape] : shapes) {
      const auto dtype = dtypes.find(name);
      CheckpointTensor tensor{
          name, dtype == dtypes.end() ? DType::bf16 : dtype->second, shape, nullptr, 0, ""};
      tensor.bytes = bytes_of(tensor.dtype, shape.elements());
      tensors.push_back(tensor);
    }
    KRAIT_ASSIGN(const auto checkpoint, Checkpoint::from_memory(config, tensors, nullptr));
    return parse_mamba_config(checkpoint->config(), *checkpoint);
  }
};

MambaConfig parsed(const Model& model) {
  const Result<MambaConfig> config = model.parse();
  EXPECT_TRUE(config.ok()) << config.message();
  return config.ok() ? *config : MambaConfig();
}

void expect_refused(const Model& model, Code code, std::string_view part) {
  const Result<MambaConfig> config = model.parse();
  ASSERT_FALSE(config.ok()) << part;
  EXPECT_EQ(config.status().code(), code) << config.message();
  EXPECT_NE(config.message().find(part), std::string::npos) << config.message();
}

/// The model with one value of its configuration changed.
void expect_value_refused(const char* key, const Json& value, Code code, std::string_view part) {
  Model model;
  model.config[key] = value;
  expect_refused(model, code, part);
}

Result<MambaConfig> parse_folder(const std::string& folder) {
  KRAIT_ASSIGN(const auto checkpoint, Checkpoint::open(test::source_dir() / folder));
  return parse_mamba_config(checkpoint->config(), *checkpoint);
}

TEST(Config, ReadsMamba) {
  const MambaConfig model = parsed(Model());
  EXPECT_EQ(model.family, Family::mamba);
  EXPECT_EQ(model.d_model, 32);
  EXPECT_EQ(model.d_inner, 64);
  EXPECT_EQ(model.d_state, 8);
  EXPECT_EQ(model.d_conv, 4);
  EXPECT_EQ(model.dt_rank, 2);
  EXPECT_EQ(model.n_layer, 2);
  EXPECT_EQ(model.vocab_size, 100);
  EXPECT_EQ(model.norm_eps, 1e-6);
  EXPECT_FALSE(model.mixer_rms_eps);
  EXPECT_TRUE(model.residual_in_fp32);
  EXPECT_FALSE(model.conv_bias || model.in_proj_bias || model.out_proj_bias);
  EXPECT_TRUE(model.tied_head);
  EXPECT_EQ(model.embedding, "backbone.embeddings.weight");
  EXPECT_EQ(model.bos_id, 1);
  EXPECT_EQ(model.eos_ids, std::vector<std::int64_t>{2});
}

TEST(Config, ReadsTheGoldenModels) {
  const auto mamba = parse_folder("tests/golden/data/models/mamba-1");
  ASSERT_TRUE(mamba.ok()) << mamba.message();
  EXPECT_TRUE(mamba->conv_bias && mamba->tied_head);
  EXPECT_EQ(mamba->n_layer, 3);

  const auto bias = parse_folder("tests/golden/data/models/mamba-bias-n8-1");
  ASSERT_TRUE(bias.ok()) << bias.message();
  EXPECT_TRUE(bias->in_proj_bias && bias->out_proj_bias);
  EXPECT_FALSE(bias->conv_bias || bias->tied_head);
  EXPECT_EQ(bias->d_inner, 144);
  EXPECT_EQ(bias->d_state, 8);
  EXPECT_EQ(bias->dt_rank, 3);

  const auto falcon = parse_folder("tests/golden/data/models/falcon-mamba-1");
  ASSERT_TRUE(falcon.ok()) << falcon.message();
  EXPECT_EQ(falcon->family, Family::falcon_mamba);
  EXPECT_EQ(falcon->mixer_rms_eps, 1e-6);

  const auto classics = parse_folder("assets/classics-mamba");
  ASSERT_TRUE(classics.ok()) << classics.message();
  EXPECT_EQ(classics->n_layer, 10);
  EXPECT_EQ(classics->d_model, 256);
  EXPECT_EQ(classics->eos_ids, std::vector<std::int64_t>{0});
}

TEST(Config, ReadsTheOriginalLayout) {
  Model model = Model::original();
  MambaConfig config = parsed(model);
  EXPECT_EQ(config.family, Family::mamba);
  EXPECT_EQ(config.embedding, "backbone.embedding.weight");
  EXPECT_EQ(config.vocab_size, 100);
  EXPECT_EQ(config.norm_eps, 1e-5);
  EXPECT_FALSE(config.bos_id);
  EXPECT_TRUE(config.eos_ids.empty());

  model.config["ssm_cfg"] = {{"layer", "Mamba1"}, {"d_state", 8},      {"d_conv", 4},
                             {"expand", 2},       {"dt_rank", "auto"}, {"bias", false}};
  model.config["attn_layer_idx"] = Json::array();
  model.config["attn_cfg"] = Json::object();
  model.config["d_intermediate"] = 0;
  EXPECT_EQ(parsed(model).d_state, 8);
  // Without the padding's unit, 8 rows are a unit: 97 becomes 104.
  model.config.erase("pad_vocab_size_multiple");
  expect_refused(model, Code::corrupt, "vocab_size is 97, padded to a multiple of 8");
  model.shapes["backbone.embedding.weight"] = {104, 32};
  EXPECT_EQ(parsed(model).vocab_size, 104);
}

TEST(Config, RefusesWhatTheOriginalLayoutCanSayBeyondMamba1) {
  const auto refused = [](const char* key, const Json& value, std::string_view part) {
    Model model = Model::original();
    model.config[key] = value;
    expect_refused(model, Code::unsupported, part);
  };
  refused("ssm_cfg", {{"layer", "Mamba2"}}, "ssm_cfg.layer is");
  refused("ssm_cfg", {{"layer", "Mamba3"}}, "Mamba3");
  refused("attn_layer_idx", {1, 3}, "attention layers");
  refused("d_intermediate", 128, "d_intermediate is \"128\"");
  refused("rms_norm", false, "only RMS norm");
  Model model = Model::original();
  model.config["ssm_cfg"] = 1;
  expect_refused(model, Code::corrupt, "ssm_cfg: expected an object");
  model.config["ssm_cfg"] = {{"d_state", 16}};
  expect_refused(model, Code::corrupt, "d_state is 16, but mixer.A_log gives 8");
  model.config["ssm_cfg"] = {{"expand", 3}};
  expect_refused(model, Code::corrupt, "makes d_inner 96, but mixer.A_log gives 64");
}

TEST(Config, ListsTheKnownFamilies) {
  expect_value_refused("model_type", "mamba2", Code::unsupported,
                       "Krait knows mamba, falcon_mamba");
  expect_value_refused("model_type", "llama", Code::unsupported, "is \"llama\"");
  expect_value_refused("model_type", 7, Code::unsupported, "Krait knows");
  expect_value_refused("model_type", Json(), Code::unsupported, "neither model_type nor d_model");
  EXPECT_EQ(family_of(Json::array()).status().code(), Code::corrupt);
  EXPECT_EQ(name(*family_of({{"model_type", "falcon_mamba"}})), "falcon_mamba");
}

TEST(Config, InfersWhatTheConfigurationLeavesOut) {
  Model model;
  model.config = {{"model_type", "falcon_mamba"}};
  const MambaConfig config = parsed(model);
  EXPECT_EQ(config.d_inner, 64);
  EXPECT_EQ(config.n_layer, 2);
  EXPECT_EQ(config.vocab_size, 100);
  EXPECT_EQ(config.mixer_rms_eps, 1e-6);
  EXPECT_EQ(config.norm_eps, 1e-5);
  model.config["hidden_size"] = Json();  // null says nothing
  EXPECT_EQ(parsed(model).d_model, 32);
}

TEST(Config, RefusesValuesThatContradictTheTensors) {
  const auto refused = [](const char* key, const Json& value, std::string_view part) {
    expect_value_refused(key, value, Code::corrupt, part);
  };
  refused("hidden_size", 33, "hidden_size is 33, but backbone.embeddings.weight gives 32");
  refused("num_hidden_layers", 3,
          "num_hidden_layers is 3, but the number of layers in the "
          "tensors gives 2");
  refused("num_hidden_layers", 1, "num_hidden_layers is 1");
  refused("state_size", 16, "state_size is 16, but mixer.A_log gives 8");
  refused("conv_kernel", 3, "conv_kernel is 3, but mixer.conv1d.weight gives 4");
  refused("time_step_rank", 3, "time_step_rank is 3, but mixer.dt_proj.weight gives 2");
  refused("intermediate_size", 96, "intermediate_size is 96, but mixer.A_log gives 64");
  refused("vocab_size", 97, "vocab_size is 97, but backbone.embeddings.weight gives 100");
  Model model;
  model.config.erase("intermediate_size");
  model.config["expand"] = 1.5;
  expect_refused(model, Code::corrupt, "makes d_inner 48");
  model.config["expand"] = 2.01;  // rounded down, as transformers does
  EXPECT_EQ(parsed(model).d_inner, 64);
  model = Model();
  for (const char* layer : {"backbone.layers.0.", "backbone.layers.1."}) {
    model.shapes[layer + std::string("mixer.dt_proj.weight")] = {64, 3};
    model.shapes[layer + std::string("mixer.x_proj.weight")] = {19, 64};
  }
  expect_refused(model, Code::corrupt, "\"auto\", which means 2, but mixer.dt_proj.weight gives 3");
}

TEST(Config, RefusesValuesOfTheWrongKind) {
  for (const Json& value : {Json(0), Json(-1), Json(8.0), Json("8"), Json::array({8}), Json(true),
                            Json(16777217), Json(18446744073709551615u)}) {
    expect_value_refused("state_size", value, Code::corrupt,
                         "state_size: expected a whole number from 1 to 16777216, got");
  }
  for (const Json& value : {Json(-1e-5), Json("1e-5"), Json(std::nan("")), Json(INFINITY),
                            Json{{"__float__", "Infinity"}}}) {
    expect_value_refused("layer_norm_epsilon", value, Code::corrupt,
                         "layer_norm_epsilon: expected a number");
  }
  expect_value_refused("residual_in_fp32", 1, Code::corrupt, "expected true or false");
  expect_value_refused("hidden_act", "gelu", Code::unsupported, "only silu");
  expect_value_refused("hidden_act", 3, Code::unsupported, "only silu");
  expect_value_refused("state_size", std::string(1000000, 'x'), Code::corrupt, "xxx\"...");
}

TEST(Config, ReadsTokenIds) {
  Model model;
  model.config["eos_token_id"] = {2, 99, 0};
  model.config["bos_token_id"] = Json();
  const MambaConfig config = parsed(model);
  EXPECT_EQ(config.eos_ids, (std::vector<std::int64_t>{2, 99, 0}));
  EXPECT_FALSE(config.bos_id);
  for (const Json& value :
       {Json(100), Json(-1), Json("2"), Json({2, -1}), Json({{2}}), Json(18446744073709551615u)}) {
    expect_value_refused("eos_token_id", value, Code::corrupt, "expected ids from 0 to 99");
    expect_value_refused("bos_token_id", value, Code::corrupt, "expected ids from 0 to 99");
  }
}

TEST(Config, TensorsDecideAboutBiasesAndTheHead) {
  Model model;
  model.config["tie_word_embeddings"] = true;
  model.config["use_conv_bias"] = false;
  model.shapes["lm_head.weight"] = {100, 32};
  for (const std::string layer : {"backbone.layers.0.mixer.", "backbone.layers.1.mixer."}) {
    model.shapes[layer + "conv1d.bias"] = {64};
    model.shapes[layer + "in_proj.bias"] = {128};
    model.shapes[layer + "out_proj.bias"] = {32};
  }
  const MambaConfig config = parsed(model);
  EXPECT_TRUE(config.conv_bias && config.in_proj_bias && config.out_proj_bias);
  EXPECT_FALSE(config.tied_head);

  model.shapes.erase("backbone.layers.1.mixer.conv1d.bias");
  expect_refused(model, Code::not_found, "backbone.layers.1.mixer.conv1d.bias");
  model.shapes.erase("backbone.layers.0.mixer.conv1d.bias");
  EXPECT_FALSE(parsed(model).conv_bias);
  model.shapes["backbone.layers.1.mixer.conv1d.bias"] = {64};
  expect_refused(model, Code::corrupt, "layer 0 has none");
}

TEST(Config, EveryTensorMustBeThereWithItsShape) {
  const Model whole;
  for (const auto& [name, shape] : whole.shapes) {
    Model model;
    model.shapes.erase(name);
    EXPECT_FALSE(model.parse().ok()) << name;
    for (int axis = 0; axis < shape.rank(); ++axis) {
      model.shapes[name] = shape;
      model.shapes[name][axis].value += 1;
      EXPECT_EQ(model.parse().status().code(), Code::corrupt) << name << " axis " << axis;
    }
    model.shapes[name] = {1, 1, 1, 1};
    EXPECT_EQ(model.parse().status().code(), Code::corrupt) << name;
    model.shapes[name] = shape;
    model.dtypes[name] = DType::i32;
    // Matrices may be block-quantised as well; integers are refused everywhere.
    expect_refused(model, Code::unsupported, "expected f32, f16 or bf16 elements");
    expect_refused(model, Code::unsupported, "got i32");
    for (const DType dtype : {DType::f32, DType::f16}) {
      model.dtypes[name] = dtype;
      EXPECT_TRUE(model.parse().ok()) << name;
    }
  }
}

TEST(Config, RefusesTensorsItWouldIgnore) {
  for (const char* name :
       {"backbone.layers.0.mixer.norm.weight", "backbone.layers.0.mlp.fc1.weight", "lm_head.bias",
        "backbone.layers.x.norm.weight", "x", "backbone.layers.99999999999999999999.norm.weight",
        "backbone.layers.-1.norm.weight", "backbone.embedding.weight"}) {
    Model model;
    model.shapes[name] = {32};
    expect_refused(model, Code::unsupported, "is not part of a mamba model");
  }
  Model model;
  model.shapes["backbone.layers.2.norm.weight"] = {32};
  expect_refused(model, Code::corrupt, "num_hidden_layers is 2");
  model.config.erase("num_hidden_layers");
  expect_refused(model, Code::not_found, "backbone.layers.2.mixer.in_proj.weight");
}

TEST(Config, RefusesHugeAndEmptyExtents) {
  Model model;
  model.config = {{"model_type", "mamba"}};
  model.shapes["backbone.layers.0.mixer.A_log"] = {16777217, 8};
  expect_refused(model, Code::corrupt, "outside 1 to 16777216");
  model.shapes["backbone.layers.0.mixer.A_log"] = {64, 0};
  expect_refused(model, Code::corrupt, "outside 1 to 16777216");
  model.shapes["backbone.layers.0.mixer.A_log"] = {16777216, 16777216};
  expect_refused(model, Code::corrupt, "backbone.layers.0");
  Model empty;
  empty.shapes.clear();
  expect_refused(empty, Code::not_found, "backbone.embeddings.weight");
  empty.shapes["backbone.embeddings.weight"] = {100, 32};
  expect_refused(empty, Code::corrupt, "no tensors backbone.layers.0.*");
}

}  // namespace
}  // namespace krait
