// GGUF files that llama.cpp wrote: their tensors, tokenizers and logits, and our own quantisation
// of the same weights.
#include <cmath>
#include <cstring>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "runtime/core/blocks.h"
#include "runtime/core/convert.h"
#include "runtime/core/try.h"
#include "runtime/model/checkpoint.h"
#include "runtime/model/gguf.h"
#include "runtime/model/gguf_model.h"
#include "runtime/model/mapped_file.h"
#include "tests/helpers/crc32.h"
#include "tests/helpers/devices.h"
#include "tests/helpers/expect.h"
#include <krait/quantize.h>
#include <krait/tokenizer.h>

namespace krait {
namespace {

using test::is_ok;
using test::must;
using Json = nlohmann::json;
using Ids = std::vector<std::int32_t>;
namespace fs = std::filesystem;

constexpr const char* kWholeFile = "classics-mamba-Q4_K_M";

fs::path golden(const std::string& name) {
  return test::goldens() / "gguf" / name;
}
Json read_json(const fs::path& path) {
  return Json::parse(test::read_file(path));
}

std::vector<float> values_of(const NamedTensor& tensor) {
  std::vector<float> values(static_cast<std::size_t>(tensor.shape.elements()));
  auto* data = const_cast<std::byte*>(tensor.data);
  EXPECT_TRUE(is_ok(convert(dense_view(data, tensor.dtype, tensor.shape),
                            dense_view(values.data(), DType::f32, tensor.shape))));
  return values;
}

/// The stems of all GGUF files.
std::vector<std::string> stems() {
  std::vector<std::string> list;
  for (const auto& entry : fs::directory_iterator(test::goldens() / "gguf")) {
    if (entry.path().extension() == ".gguf") list.push_back(entry.path().stem().string());
  }
  return list;
}

TEST(GgufGolden, TensorsAreWhatLlamaCppSays) {
  std::set<std::string> types;
  for (const std::string& stem : stems()) {
    const MappedFile file = must(MappedFile::open(golden(stem + ".gguf")));
    const GgufFile gguf = must(GgufFile::parse(file.bytes(), stem));
    const Json expected = read_json(golden(stem + ".json"))["tensors"];
    EXPECT_EQ(gguf.tensors().size(), expected.size()) << stem;
    for (const Json& entry : expected) {
      const std::string name = entry["name"];
      SCOPED_TRACE(cat(stem, " ", name));
      const NamedTensor* tensor = gguf.find(name);
      ASSERT_NE(tensor, nullptr);
      ASSERT_EQ(tensor->problem, "");
      std::string type = entry["type"];
      types.insert(type);
      for (char& c : type) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
      EXPECT_EQ(krait::name(tensor->dtype), type);
      EXPECT_EQ(tensor->bytes, entry["bytes"].get<std::int64_t>());
      const auto extents = entry["ne"].get<std::vector<std::int64_t>>();
      EXPECT_EQ(tensor->shape, Shape(std::span<const std::int64_t>(
                                   std::vector<std::int64_t>(extents.rbegin(), extents.rend()))));
      const std::vector<float> values = values_of(*tensor);
      EXPECT_EQ(test::crc32(std::as_bytes(std::span(values))),
                entry["crc32_dequantised_f32"].get<std::uint32_t>());
    }
  }
  EXPECT_GE(types.size(), 5u);  // f32, f16, q8_0, q4_0, q4_k, q6_k
}

std::vector<float> read_logits(const fs::path& path) {
  const std::string bytes = test::read_file(path);
  std::vector<float> logits(bytes.size() / sizeof(float));
  std::memcpy(logits.data(), bytes.data(), logits.size() * sizeof(float));
  return logits;
}

struct Difference {
  double largest = 0, mean = 0;
};
Difference difference_of(const std::vector<float>& a, const Logits& b) {
  Difference result;
  std::size_t at = 0;
  for (std::int64_t row = 0; row < b.rows; ++row) {
    for (const float logit : b.row(row)) {
      const double difference = std::fabs(double(a[at++]) - logit);
      result.largest = std::max(result.largest, difference);
      result.mean += difference;
    }
  }
  result.mean /= static_cast<double>(at);
  return result;
}

class GgufOnDevice : public testing::TestWithParam<std::string> {};

TEST_P(GgufOnDevice, LogitsAreThoseOfExactActivations) {
  int files = 0;
  for (const std::string& stem : stems()) {
    const fs::path path = golden(stem + ".gguf");
    const Json expected = read_json(golden(stem + ".json"));
    if (expected["model"] != "classics-mamba" || !expected.contains("input_ids")) continue;
    const Program program =
        must(Program::create(must(Model::load(path)), test::device(GetParam())));
    const Ids ids = expected["input_ids"];
    Session session = must(Session::create(program, {}));
    const Segment segment{ids, -1, 0};
    const auto logits = session.forward({&segment, 1}, Rows::all);
    // The conformance table of such a device says that its kernels do not take block types.
    const bool takes_blocks = GetParam() == "reference" || GetParam() == "cpu";
    if (!takes_blocks && logits.status().code() == Code::unsupported)
      GTEST_SKIP() << logits.message();
    ASSERT_TRUE(is_ok(logits));
    const std::vector<float> want = read_logits(golden(stem + ".deq.logits.f32"));
    ASSERT_EQ(want.size(), ids.size() * 4096);
    const double difference = difference_of(want, *logits).largest;
    EXPECT_LE(difference, 1e-4) << stem;
    RecordProperty(test::test_name(stem), std::to_string(difference * 1e6) + "e-6");
    ++files;
  }
  EXPECT_GE(files, 1);
}

INSTANTIATE_TEST_SUITE_P(Devices, GgufOnDevice, testing::ValuesIn(test::device_names()),
                         [](const auto& info) { return test::test_name(info.param); });

// llama.cpp rounds activations to int8 as well: not in the same way, but as far.
TEST(GgufGolden, NativeLogitsAreAsNearAsLlamaCppsOwn) {
  for (const std::string& stem : stems()) {
    const Json expected = read_json(golden(stem + ".json"));
    if (expected["model"] != "classics-mamba" || !expected.contains("input_ids")) continue;
    const Program program = must(Program::create(must(Model::load(golden(stem + ".gguf"))),
                                                 test::device("cpu"), {Activations::native}));
    EXPECT_EQ(program.activations(), "native");
    const Ids ids = expected["input_ids"];
    Session session = must(Session::create(program, {}));
    const Segment segment{ids, -1, 0};
    const Logits logits = must(session.forward({&segment, 1}, Rows::all));
    const Difference difference = difference_of(read_logits(golden(stem + ".logits.f32")), logits);
    EXPECT_LE(difference.largest, 0.4) << stem;
    EXPECT_LE(difference.mean, 0.05) << stem;
    RecordProperty(test::test_name(stem), std::to_string(difference.largest));
  }
}

TEST(GgufGolden, TokenizesLikeLlamaCpp) {
  const Model model = must(Model::load(golden(std::string(kWholeFile) + ".gguf")));
  const Tokenizer tokenizer = must(model.tokenizer());
  EXPECT_EQ(tokenizer.vocab_size(), 4096);
  EXPECT_EQ(tokenizer.bos(), 0);
  EXPECT_EQ(tokenizer.eos(), 0);
  EXPECT_TRUE(tokenizer.is_special(0));
  EXPECT_EQ(model.info().eos, Ids{0});
  const Json cases = read_json(test::goldens() / "tokenizer-classics.json")["strings"];
  ASSERT_GE(cases.size(), 40u);
  for (const Json& each : cases) {
    const std::string text = each["text"];
    const EncodeOptions as_there{.add_special = true, .parse_special = false};
    EXPECT_EQ(must(tokenizer.encode(text, as_there)), each["llamacpp"].get<Ids>()) << text;
    EXPECT_EQ(must(tokenizer.encode(text)), each["hf_reference"].get<Ids>()) << text;
    EXPECT_EQ(must(tokenizer.decode(each["hf_reference"].get<Ids>())), text);
  }
}

// ---- Our own files ------------------------------------------------------------------------------

const Model& classics() {
  static const Model model = must(Model::load(test::assets() / "classics-mamba"));
  return model;
}

/// A file of classics-mamba in a type, parsed.
struct Quantized {
  Quantized(const test::TemporaryFolder& folder, DType type, int threads = 2)
      : path(folder / (std::string(name(type)) + std::to_string(threads) + ".gguf")),
        report(must(quantize_model(classics(), path, {.type = type, .threads = threads}))),
        file(must(MappedFile::open(path))),
        gguf(must(GgufFile::parse(file.bytes(), path.string()))) {}

  fs::path path;
  QuantizeReport report;
  MappedFile file;
  GgufFile gguf;
};

std::string_view bytes_of(const NamedTensor& tensor) {
  return {reinterpret_cast<const char*>(tensor.data), static_cast<std::size_t>(tensor.bytes)};
}

TEST(QuantizeGolden, RoundsToTheSameBlocksAsLlamaCpp) {
  const test::TemporaryFolder folder;
  const Quantized ours(folder, DType::q8_0);
  for (const std::string& stem : stems()) {
    if (!stem.starts_with("classics-mamba-Q8_0")) continue;
    const MappedFile file = must(MappedFile::open(golden(stem + ".gguf")));
    const GgufFile theirs = must(GgufFile::parse(file.bytes(), stem));
    for (const NamedTensor& tensor : theirs.tensors()) {
      const NamedTensor* own = ours.gguf.find(tensor.name);
      ASSERT_NE(own, nullptr) << tensor.name;
      EXPECT_EQ(own->dtype, tensor.dtype) << tensor.name;
      EXPECT_EQ(own->shape, tensor.shape) << tensor.name;
      // exp of A_log differs in the last bit between libraries.
      if (!tensor.name.ends_with("ssm_a")) {
        EXPECT_TRUE(bytes_of(*own) == bytes_of(tensor)) << tensor.name;
      }
    }
    return;
  }
  FAIL() << "no golden of type Q8_0";
}

TEST(QuantizeGolden, KTypesComeNearerThanLlamaCpp) {
  const test::TemporaryFolder folder;
  const Quantized ours(folder, DType::q4_k);
  const MappedFile file = must(MappedFile::open(golden(std::string(kWholeFile) + ".gguf")));
  const GgufFile theirs = must(GgufFile::parse(file.bytes(), kWholeFile));
  ASSERT_EQ(ours.gguf.tensors().size(), theirs.tensors().size());
  std::map<DType, std::pair<double, double>> errors;
  const auto original = must(Checkpoint::open(test::assets() / "classics-mamba"));
  for (const CheckpointTensor& tensor : original->tensors()) {
    const NamedTensor* own = ours.gguf.find(gguf_tensor_name(tensor.name));
    const NamedTensor* other = theirs.find(gguf_tensor_name(tensor.name));
    ASSERT_TRUE(own && other) << tensor.name;
    ASSERT_EQ(own->dtype, other->dtype) << tensor.name;
    ASSERT_EQ(own->shape, other->shape) << tensor.name;
    if (!is_block(own->dtype)) continue;
    const std::vector<float> want = values_of(tensor), a = values_of(*own), b = values_of(*other);
    auto& [own_error, other_error] = errors[own->dtype];
    for (std::size_t i = 0; i < want.size(); ++i) {
      own_error += std::pow(double(a[i]) - want[i], 2);
      other_error += std::pow(double(b[i]) - want[i], 2);
    }
  }
  ASSERT_EQ(errors.size(), 2u);
  for (const auto& [type, error] : errors) {
    EXPECT_LT(error.first, error.second) << name(type);
    RecordProperty(std::string(name(type)), std::to_string(error.first / error.second));
  }
}

TEST(QuantizeGolden, MetadataAreThoseOfLlamaCpp) {
  const test::TemporaryFolder folder;
  const Quantized ours(folder, DType::q4_k);
  const MappedFile file = must(MappedFile::open(golden(std::string(kWholeFile) + ".gguf")));
  const GgufFile theirs = must(GgufFile::parse(file.bytes(), kWholeFile));
  for (const auto& [key, value] : theirs.metadata()) {
    if (key == "tokenizer.ggml.padding_token_id") continue;
    const GgufValue* own = ours.gguf.value(key);
    ASSERT_NE(own, nullptr) << key;
    EXPECT_EQ(own->type, value.type) << key;
    EXPECT_EQ(own->element, value.element) << key;
    EXPECT_EQ(own->count, value.count) << key;
    EXPECT_TRUE(std::ranges::equal(own->bytes, value.bytes)) << key;
  }
}

TEST(QuantizeGolden, TheFileDoesNotDependOnThreads) {
  const test::TemporaryFolder folder;
  const Quantized one(folder, DType::q4_k, 1), three(folder, DType::q4_k, 3);
  EXPECT_TRUE(one.file.text() == three.file.text());
}

/// Of the beginning of a text, from scratch.
double bits_per_byte(const Model& model, std::string_view text, Activations activations) {
  const Program program = must(Program::create(model, test::device("cpu"), {activations}));
  const Ids ids = must(must(model.tokenizer()).encode(text));
  Session session = must(Session::create(program, {}));
  const Segment segment{ids, -1, 0};
  const auto logits = must(session.forward({&segment, 1}, Rows::all));
  double bits = 0;
  for (std::size_t t = 0; t + 1 < ids.size(); ++t) {
    const auto row = logits.row(static_cast<std::int64_t>(t));
    double sum = 0;
    for (const float logit : row) sum += std::exp(double(logit));
    bits += std::log2(sum) - row[static_cast<std::size_t>(ids[t + 1])] / std::log(2.0);
  }
  return bits / static_cast<double>(text.size());
}

// A model in any type is as good a model. Of the whole text: q8_0 +0.00002 exact and +0.0001
// native, q4_k +0.006 both.
TEST(QuantizeGolden, BitsPerByteHardlyChange) {
  const std::string book =
      test::read_file(test::source_dir() / "tests/golden/data/carroll-alice.txt");
  const std::string_view text = std::string_view(book).substr(0, book.find('\n', 20000));
  const test::TemporaryFolder folder;
  const double before = bits_per_byte(classics(), text, Activations::exact);
  EXPECT_GT(before, 1.1);
  EXPECT_LT(before, 1.5);
  const std::pair<DType, double> kBounds[] = {{DType::q8_0, 0.005}, {DType::q4_k, 0.06}};
  for (const auto& [type, bound] : kBounds) {
    const Quantized file(folder, type);
    const fs::path wide = folder / "wide.gguf";
    must(quantize_model(must(Model::load(file.path)), wide, {.type = DType::f32}));
    const Model model = must(Model::load(wide));
    // Exact: the values are those that the blocks mean.
    const MappedFile mapped = must(MappedFile::open(wide));
    const GgufFile parsed = must(GgufFile::parse(mapped.bytes(), "wide"));
    for (const NamedTensor& tensor : parsed.tensors()) {
      ASSERT_EQ(tensor.dtype, DType::f32);
      ASSERT_EQ(values_of(tensor), values_of(*file.gguf.find(tensor.name))) << tensor.name;
    }
    const double in_blocks = bits_per_byte(must(Model::load(file.path)), text, Activations::exact);
    EXPECT_NEAR(in_blocks, bits_per_byte(model, text, Activations::exact), 1e-5) << name(type);
    for (const auto& [activations, bits] :
         {std::pair(Activations::exact, in_blocks),
          std::pair(Activations::native,
                    bits_per_byte(must(Model::load(file.path)), text, Activations::native))}) {
      EXPECT_LT(std::fabs(bits - before), bound) << name(type) << " " << name(activations);
      RecordProperty(cat(name(type), "_", name(activations)), std::to_string(bits - before));
    }
  }
}

}  // namespace
}  // namespace krait
