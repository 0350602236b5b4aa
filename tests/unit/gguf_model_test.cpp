// GGUF files as checkpoints, and models as GGUF files.
#include "runtime/model/gguf_model.h"

#include <cmath>
#include <limits>

#include "graph/ir.h"
#include "runtime/model/checkpoint.h"
#include "runtime/model/config.h"
#include "tests/helpers/devices.h"
#include "tests/helpers/expect.h"
#include "tests/helpers/files.h"
#include "tests/helpers/gguf_bytes.h"
#include <krait/quantize.h>
#include <krait/verify.h>

namespace krait {
namespace {

using test::GgufBytes;
using test::is_error;
using test::is_ok;
using test::le;
using test::must;
namespace fs = std::filesystem;

constexpr std::uint32_t kF32 = 0, kQ2K = 10;

/// Only what config.json is made of.
GgufBytes mamba_metadata(bool dt_b_c_rms) {
  GgufBytes bytes;
  bytes.text("general.architecture", "mamba").number("mamba.embedding_length", 8);
  bytes.number("mamba.block_count", 1).number("mamba.ssm.inner_size", 16);
  bytes.number("mamba.ssm.state_size", 4).number("mamba.ssm.conv_kernel", 3);
  bytes.number("mamba.ssm.time_step_rank", 2);
  bytes.add("mamba.attention.layer_norm_rms_epsilon", GgufType::f32, le(1e-5f));
  bytes.add("mamba.ssm.dt_b_c_rms", GgufType::boolean, le(std::uint8_t{dt_b_c_rms}));
  bytes.number("tokenizer.ggml.bos_token_id", 1).number("tokenizer.ggml.eos_token_id", 2);
  return bytes;
}

GgufBytes mamba_file(bool dt_b_c_rms = false) {
  GgufBytes bytes = mamba_metadata(dt_b_c_rms);
  const auto f32 = [&](std::string_view name, std::initializer_list<std::uint64_t> extents) {
    std::size_t count = 1;
    for (const std::uint64_t extent : extents) count *= extent;
    bytes.tensor(name, extents, kF32, 4 * count, '\0');
  };
  f32("token_embd.weight", {8, 32});
  f32("output_norm.weight", {8});
  f32("blk.0.attn_norm.weight", {8});
  f32("blk.0.ssm_in.weight", {8, 32});
  f32("blk.0.ssm_conv1d.weight", {3, 16});
  f32("blk.0.ssm_conv1d.bias", {16});
  f32("blk.0.ssm_x.weight", {16, 10});
  f32("blk.0.ssm_dt.weight", {2, 16});
  f32("blk.0.ssm_dt.bias", {16});
  f32("blk.0.ssm_a", {4, 16});
  f32("blk.0.ssm_d", {16});
  f32("blk.0.ssm_out.weight", {16, 8});
  return bytes;
}

Result<std::shared_ptr<const Checkpoint>> open(const test::TemporaryFolder& folder,
                                               const GgufBytes& bytes) {
  test::write_file(folder / "m.gguf", bytes.str());
  return Checkpoint::open(folder / "m.gguf");
}

TEST(GgufModel, NamesAndShapesAreHuggingFaces) {
  const test::TemporaryFolder folder;
  const auto checkpoint = must(open(folder, mamba_file()));
  const Json& config = checkpoint->config();
  EXPECT_EQ(config, (Json{{"model_type", "mamba"},
                          {"hidden_size", 8},
                          {"num_hidden_layers", 1},
                          {"intermediate_size", 16},
                          {"state_size", 4},
                          {"conv_kernel", 3},
                          {"time_step_rank", 2},
                          {"layer_norm_epsilon", 1e-5},
                          {"bos_token_id", 1},
                          {"eos_token_id", 2}}));
  const MambaConfig parsed = must(parse_mamba_config(config, *checkpoint));
  EXPECT_EQ(parsed.d_inner, 16);
  EXPECT_EQ(parsed.d_state, 4);
  EXPECT_EQ(parsed.dt_rank, 2);
  EXPECT_EQ(parsed.a_name, "A");
  EXPECT_TRUE(parsed.tied_head);
  EXPECT_TRUE(parsed.conv_bias);
  const auto shape = [&](std::string_view name) {
    const CheckpointTensor* tensor = checkpoint->find(name);
    return tensor ? to_string(tensor->shape) : "absent";
  };
  EXPECT_EQ(shape("backbone.embeddings.weight"), "[32, 8]");
  EXPECT_EQ(shape("backbone.layers.0.mixer.conv1d.weight"), "[16, 1, 3]");
  EXPECT_EQ(shape("backbone.layers.0.mixer.A"), "[16, 4]");
  EXPECT_EQ(shape("backbone.layers.0.mixer.D"), "[16]");
  EXPECT_EQ(shape("backbone.layers.0.mixer.x_proj.weight"), "[10, 16]");
}

TEST(GgufModel, Mamba2IsReadableButNotBuiltYet) {
  const test::TemporaryFolder folder;
  GgufBytes bytes;
  bytes.text("general.architecture", "mamba2").number("mamba2.ssm.time_step_rank", 4);
  bytes.number("mamba2.ssm.group_count", 2);
  bytes.tensor("blk.11.ssm_a", {1, 4}, kF32, 16, 'a');
  bytes.tensor("blk.11.ssm_d", {1, 4}, kF32, 16, 'd');
  bytes.tensor("blk.11.ssm_dt.bias", {4}, kF32, 16, 'b');
  bytes.tensor("blk.11.ssm_norm.weight", {3, 2}, kF32, 24, 'n');
  const auto checkpoint = must(open(folder, bytes));
  EXPECT_EQ(checkpoint->config(),
            (Json{{"model_type", "mamba2"}, {"num_heads", 4}, {"n_groups", 2}}));
  const auto shape = [&](std::string_view name) {
    const CheckpointTensor* tensor = checkpoint->find(name);
    return tensor ? to_string(tensor->shape) : "absent";
  };
  EXPECT_EQ(shape("backbone.layers.11.mixer.A"), "[4]");
  EXPECT_EQ(shape("backbone.layers.11.mixer.D"), "[4]");
  EXPECT_EQ(shape("backbone.layers.11.mixer.dt_bias"), "[4]");
  EXPECT_EQ(shape("backbone.layers.11.mixer.norm.weight"), "[6]");
  EXPECT_TRUE(is_error(Model::load(folder / "m.gguf"), Code::unsupported, "mamba2"));
}

TEST(GgufModel, FalconMamba) {
  const test::TemporaryFolder folder;
  GgufBytes bytes = mamba_file(true);
  const auto eps = [&] {
    const auto checkpoint = must(open(folder, bytes));
    const MambaConfig config = must(parse_mamba_config(checkpoint->config(), *checkpoint));
    EXPECT_EQ(config.family, Family::falcon_mamba);
    return config.mixer_rms_eps;
  };
  EXPECT_EQ(eps(), 1e-6);
  bytes.add("krait.mixer_rms_eps", GgufType::f32, le(1e-4f));
  EXPECT_EQ(eps(), 1e-4);
}

TEST(GgufModel, FilesAreFoundAndRecognised) {
  const test::TemporaryFolder folder;
  test::write_file(folder / "no-extension", mamba_file().str());
  EXPECT_TRUE(is_ok(Model::load(folder / "no-extension")));
  const fs::path inside = folder / "inside";
  fs::create_directories(inside);
  EXPECT_TRUE(is_error(Model::load(inside), Code::not_found, "nor one .gguf file"));
  test::write_file(inside / "a.gguf", mamba_file().str());
  EXPECT_TRUE(is_ok(Model::load(inside)));
  test::write_file(inside / "b.gguf", mamba_file().str());
  EXPECT_TRUE(is_error(Model::load(inside), Code::invalid_argument, "2 .gguf files; name one"));
  EXPECT_TRUE(is_ok(Model::load(inside / "b.gguf")));
  fs::remove(inside / "b.gguf");
  test::write_file(inside / "config.json", "{}");
  EXPECT_TRUE(is_error(Model::load(inside), Code::not_found, "holds neither"));
  test::write_file(folder / "text.txt", "GGU");
  EXPECT_TRUE(is_error(Model::load(folder / "text.txt"), Code::unsupported, "a GGUF file"));
}

TEST(GgufModel, RefusesWhatItCannotRun) {
  const test::TemporaryFolder folder;
  const auto message = [&](const GgufBytes& bytes) {
    test::write_file(folder / "m.gguf", bytes.str());
    return Model::load(folder / "m.gguf").status();
  };
  EXPECT_TRUE(is_error(message(GgufBytes()), Code::corrupt, "no text general.architecture"));
  EXPECT_TRUE(is_error(message(GgufBytes().number("general.architecture", 1)), Code::corrupt,
                       "no text general.architecture"));
  EXPECT_TRUE(is_error(message(GgufBytes().text("general.architecture", "jamba")),
                       Code::unsupported, "m.gguf: architecture \"jamba\""));
  EXPECT_TRUE(is_error(message(mamba_file().number("split.count", 2)), Code::unsupported,
                       "one of several parts"));
  EXPECT_TRUE(is_error(message(GgufBytes(mamba_metadata(false))), Code::not_found,
                       "backbone.embeddings.weight"));
  EXPECT_TRUE(is_error(message(mamba_file().tensor("extra", {1}, kF32, 4, 'x')), Code::unsupported,
                       "\"extra\" is not part of a mamba model"));
  EXPECT_TRUE(
      is_error(message(mamba_file().tensor("backbone.embeddings.weight", {1}, kF32, 4, 'x')),
               Code::corrupt, "two tensors called"));
  EXPECT_TRUE(is_error(message(mamba_file().tensor("output.weight", {8, 32}, kQ2K, 84, 'x')),
                       Code::unsupported, "Q2_K"));
  GgufBytes wrong;
  wrong.text("general.architecture", "mamba").text("mamba.block_count", "ten");
  EXPECT_TRUE(
      is_error(message(wrong), Code::corrupt, "mamba.block_count: expected a whole number"));
  wrong = {};
  wrong.text("general.architecture", "mamba").number("mamba.ssm.dt_b_c_rms", 1);
  EXPECT_TRUE(is_error(message(wrong), Code::corrupt, "expected true or false"));
}

TEST(GgufModel, NamesOfBothLayouts) {
  EXPECT_EQ(gguf_tensor_name("backbone.embedding.weight"), "token_embd.weight");
  EXPECT_EQ(gguf_tensor_name("backbone.embeddings.weight"), "token_embd.weight");
  EXPECT_EQ(gguf_tensor_name("lm_head.weight"), "output.weight");
  EXPECT_EQ(gguf_tensor_name("backbone.layers.12.mixer.A_log"), "blk.12.ssm_a");
  EXPECT_EQ(gguf_tensor_name("backbone.layers.12.mixer.A"), "blk.12.ssm_a");
  EXPECT_EQ(gguf_tensor_name("backbone.layers.0.mixer.dt_proj.bias"), "blk.0.ssm_dt.bias");
  EXPECT_EQ(gguf_tensor_name("backbone.layers.x.mixer.D"), "");
  EXPECT_EQ(gguf_tensor_name("something.else"), "");
}

// ---- quantize_model -----------------------------------------------------------------------------

TEST(QuantizeModel, EveryFamilySurvivesTheWayThroughAFile) {
  const test::TemporaryFolder folder;
  for (const char* name : {"mamba-1", "falcon-mamba-1", "mamba-bias-n8-1"}) {
    SCOPED_TRACE(name);
    const fs::path path = folder / (std::string(name) + ".gguf");
    const auto report = must(quantize_model(test::golden_model(name), path, {.type = DType::f32}));
    EXPECT_EQ(report.bytes, report.bytes_before);
    EXPECT_NE(report.tokenizer_problem, "");
    const Model model = must(Model::load(path));
    EXPECT_EQ(model.info().architecture, test::golden_model(name).info().architecture);
    EXPECT_TRUE(is_error(model.tokenizer(), Code::not_found, "tokenizer"));
    const Program program = must(Program::create(model, test::device("reference")));
    const VerifyReport verified =
        must(verify(program, test::goldens() / "models" / name / "expected.safetensors"));
    EXPECT_LE(verified.modes.at(0).rel_l2, 1e-5);
    EXPECT_EQ(verified.greedy_equal, true);
  }
}

TEST(QuantizeModel, TensorsFallBackOneByOne) {
  const test::TemporaryFolder folder;
  const auto types = [&](const char* name, DType type) {
    std::map<std::string, std::string> types;
    const auto report =
        must(quantize_model(test::golden_model(name), folder / "m.gguf", {.type = type}));
    for (const QuantizedTensor& tensor : report.tensors) {
      types[tensor.name] = krait::name(tensor.to);
      EXPECT_EQ(tensor.reason.empty(), tensor.to == type) << tensor.name;
    }
    return types;
  };
  // Rows: embedding 64, ssm_in 64, ssm_x and ssm_out 128, ssm_dt 4.
  auto q4_k = types("mamba-1", DType::q4_k);
  EXPECT_EQ(q4_k["token_embd.weight"],
            "q8_0");  // as the head it is q6_k, whose blocks are too long
  EXPECT_EQ(q4_k["blk.0.ssm_in.weight"], "q5_0");
  EXPECT_EQ(q4_k["blk.2.ssm_out.weight"], "q5_0");
  EXPECT_EQ(q4_k["blk.0.ssm_dt.weight"], "f16");
  EXPECT_EQ(q4_k["blk.0.ssm_conv1d.weight"], "f32");
  EXPECT_EQ(q4_k["blk.0.ssm_a"], "f32");
  EXPECT_EQ(types("mamba-1", DType::q5_k)["blk.0.ssm_in.weight"], "q5_1");
  EXPECT_EQ(types("mamba-1", DType::q6_k)["blk.0.ssm_in.weight"], "q8_0");
  EXPECT_EQ(types("mamba-1", DType::q4_1)["blk.0.ssm_in.weight"], "q4_1");
  auto bf16 = types("mamba-1", DType::bf16);
  EXPECT_EQ(bf16["blk.0.ssm_dt.weight"], "bf16");
  EXPECT_EQ(bf16["blk.0.ssm_d"], "f32");
  // A head of its own, and rows of 48 and 144, which no block fits.
  auto untied = types("mamba-bias-n8-1", DType::q4_0);
  EXPECT_EQ(untied["output.weight"], "f16");
  EXPECT_EQ(untied["blk.0.ssm_in.bias"], "f32");
  const test::TemporaryFolder other;
  EXPECT_TRUE(is_ok(Model::load(folder / "m.gguf")));
}

/// A graph like none of the families', and weights that are not finite.
TEST(QuantizeModel, Refusals) {
  const test::TemporaryFolder folder;
  const fs::path path = folder / "m.gguf";
  EXPECT_TRUE(is_error(quantize_model(test::golden_model("mamba-1"), path, {.type = DType::i32}),
                       Code::invalid_argument, "got i32"));
  EXPECT_TRUE(is_error(quantize_model(test::golden_model("mamba-1"), folder / "no/m.gguf", {}),
                       Code::not_found, "cannot create"));

  GraphBuilder builder("own");
  const Value x = builder.input("x", DType::f32, {dims::T, 32});
  builder.output("y",
                 builder.op("linear", {{"x", x}, {"w", builder.weight("w", DType::f32, {4, 32})}}));
  std::vector<float> w(4 * 32);
  const Weight weight{"w", dense_view(w.data(), DType::f32, {4, 32})};
  const Model own = must(Model::from_graph(must(builder.build()), {&weight, 1}));
  EXPECT_TRUE(is_error(quantize_model(own, path, {}), Code::unsupported, "model_type"));

  GgufBytes bytes = mamba_file();
  bytes.data.replace(0, 4, le(std::numeric_limits<float>::quiet_NaN()));
  test::write_file(folder / "nan.gguf", bytes.str());
  const Model nan = must(Model::load(folder / "nan.gguf"));
  EXPECT_TRUE(is_error(quantize_model(nan, path, {.type = DType::f16}), Code::corrupt,
                       "\"backbone.embeddings.weight\" holds nan"));
  EXPECT_FALSE(fs::exists(path));
  EXPECT_TRUE(is_ok(quantize_model(nan, path, {.type = DType::bf16})));
}

TEST(QuantizeModel, RandomModelsHaveTheTypesOfFiles) {
  const Model model = must(Model::random("mamba-130m", DType::q4_k));
  EXPECT_EQ(model.info().weights, "q4_k");
  const auto type_of = [&](std::string_view name) {
    for (const ir::Value& value : model.graph().ir().values) {
      if (value.name == name) return std::string(krait::name(value.type.dtype));
    }
    return std::string("absent");
  };
  EXPECT_EQ(type_of("backbone.embeddings.weight"), "q6_k");
  EXPECT_EQ(type_of("backbone.layers.0.mixer.in_proj.weight"), "q4_k");
  EXPECT_EQ(type_of("backbone.layers.0.mixer.dt_proj.weight"), "f16");
  EXPECT_EQ(type_of("backbone.layers.0.mixer.D"), "f32");
  // Its graph is text that parses back, types included.
  const std::string text = model.graph().print();
  EXPECT_EQ(must(Graph::parse(text)).print(), text);
  EXPECT_TRUE(is_error(Model::random("mamba-130m", DType::i64), Code::invalid_argument, "got i64"));
}

TEST(QuantizeModel, ReportsProgressUpToTheEnd) {
  const test::TemporaryFolder folder;
  std::int64_t last = 0, end = 0;
  QuantizeOptions options{.type = DType::q8_0, .threads = 3};
  options.progress = [&](std::int64_t done, std::int64_t total) {
    EXPECT_GE(done, last);
    last = done;
    end = total;
  };
  must(quantize_model(test::golden_model("mamba-1"), folder / "m.gguf", options));
  EXPECT_EQ(end, test::golden_model("mamba-1").info().parameters);
  EXPECT_EQ(last, end);
}

}  // namespace
}  // namespace krait
