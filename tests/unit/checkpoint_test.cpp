#include "runtime/model/checkpoint.h"

#include <algorithm>
#include <cstring>
#include <fstream>
#include <gtest/gtest.h>
#include <string>
#include <string_view>
#include <unistd.h>
#include <vector>

#include "tests/helpers/files.h"

namespace krait {
namespace {

namespace fs = std::filesystem;

std::string_view bytes(const void* data, std::size_t count) {
  return {static_cast<const char*>(data), count};
}

class CheckpointTest : public testing::Test {
 protected:
  CheckpointTest() {
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  ~CheckpointTest() override { fs::remove_all(folder_); }

  void write(const std::string& name, const std::string& text) {
    std::ofstream(folder_ / name, std::ios::binary) << text;
  }
  /// A safetensors file of float vectors, each filled with its own value.
  void write_tensors(const std::string& name,
                     const std::vector<std::pair<std::string, float>>& contents) {
    std::vector<NamedTensor> tensors;
    std::vector<std::vector<float>> values;
    for (const auto& [tensor, value] : contents) {
      values.emplace_back(3, value);
      tensors.push_back({tensor, DType::f32, Shape{3},
                         reinterpret_cast<const std::byte*>(values.back().data()), 12, ""});
    }
    const Status status = write_safetensors(folder_ / name, tensors, {});
    ASSERT_TRUE(status.ok()) << status.message();
  }
  void write_index(const Json& weight_map) {
    write("model.safetensors.index.json",
          Json{{"metadata", {{"total_size", 24}}}, {"weight_map", weight_map}}.dump());
  }
  std::shared_ptr<const Checkpoint> opened(const fs::path& path) {
    auto checkpoint = Checkpoint::open(path);
    EXPECT_TRUE(checkpoint.ok()) << checkpoint.message();
    return checkpoint.ok() ? *checkpoint : nullptr;
  }
  void expect_refused(const fs::path& path, Code code, std::string_view part) {
    const auto checkpoint = Checkpoint::open(path);
    ASSERT_FALSE(checkpoint.ok());
    EXPECT_EQ(checkpoint.status().code(), code) << checkpoint.message();
    EXPECT_NE(checkpoint.message().find(part), std::string::npos) << checkpoint.message();
  }
  static float first(const CheckpointTensor* tensor) {
    float value = -1;
    if (tensor && tensor->data) std::memcpy(&value, tensor->data, sizeof value);
    return value;
  }

  fs::path folder_ =
      fs::path(testing::TempDir()) / ("krait-checkpoint-" + std::to_string(::getpid()));
};

TEST_F(CheckpointTest, OpensWhatTransformersWrote) {
  const auto checkpoint = opened(test::source_dir() / "tests/golden/data/models/falcon-mamba-1");
  ASSERT_TRUE(checkpoint);
  EXPECT_EQ(checkpoint->config()["model_type"], "falcon_mamba");
  EXPECT_EQ(checkpoint->tensors().size(), 32u);
  EXPECT_TRUE(std::ranges::is_sorted(checkpoint->tensors(), {}, &CheckpointTensor::name));
  const CheckpointTensor* d = checkpoint->find("backbone.layers.2.mixer.D");
  ASSERT_TRUE(d);
  EXPECT_EQ(to_string(d->shape), "[128]");
  EXPECT_EQ(checkpoint->find("backbone.layers.3.mixer.D"), nullptr);
}

TEST_F(CheckpointTest, OpensTheShippedModel) {
  const auto checkpoint = opened(test::source_dir() / "assets/classics-mamba");
  ASSERT_TRUE(checkpoint);
  EXPECT_GT(checkpoint->bytes(), 11'000'000);
  const auto tokenizer = checkpoint->read_sibling("tokenizer.json");
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.message();
  EXPECT_TRUE(parse_json(*tokenizer, "tokenizer.json").ok());
}

TEST_F(CheckpointTest, OpensAFolderAFileAndARelativePath) {
  write("config.json", R"({"limit": Infinity})");
  write_tensors("model.safetensors", {{"b", 2}, {"a", 1}});
  write_tensors("other.safetensors", {{"c", 3}});
  auto checkpoint = opened(folder_);
  ASSERT_TRUE(checkpoint);
  EXPECT_TRUE(checkpoint->config()["limit"].is_number_float());
  EXPECT_EQ(first(checkpoint->find("a")), 1);
  EXPECT_EQ(first(checkpoint->find("b")), 2);
  EXPECT_EQ(checkpoint->bytes(), 24);

  checkpoint = opened(folder_ / "other.safetensors");
  ASSERT_TRUE(checkpoint);
  EXPECT_EQ(first(checkpoint->find("c")), 3);

  const fs::path before = fs::current_path();
  fs::current_path(folder_);
  checkpoint = opened("other.safetensors");
  EXPECT_TRUE(checkpoint && checkpoint->read_sibling("config.json").ok());
  EXPECT_TRUE(opened("."));
  EXPECT_TRUE(opened("./"));
  fs::current_path(before);
}

TEST_F(CheckpointTest, OpensShards) {
  write("config.json", "{}");
  write_tensors("m-1.safetensors", {{"b", 2}, {"z", 4}});
  write_tensors("m-2.safetensors", {{"a", 1}});
  write_index({{"b", "m-1.safetensors"}, {"a", "m-2.safetensors"}});
  const auto checkpoint = opened(folder_);
  ASSERT_TRUE(checkpoint);
  // A tensor that only its shard names is there as well.
  ASSERT_EQ(checkpoint->tensors().size(), 3u);
  EXPECT_EQ(first(checkpoint->find("a")), 1);
  EXPECT_EQ(first(checkpoint->find("b")), 2);
  EXPECT_EQ(first(checkpoint->find("z")), 4);
}

TEST_F(CheckpointTest, RefusesBadIndices) {
  write("config.json", "{}");
  write_tensors("m-1.safetensors", {{"b", 2}});
  write_tensors("m-2.safetensors", {{"a", 1}, {"b", 3}});
  const auto refused = [&](Code code, std::string_view part) {
    expect_refused(folder_, code, part);
  };
  write_index({{"b", "m-1.safetensors"}, {"a", "m-1.safetensors"}});
  refused(Code::corrupt, "\"a\" is not in m-1.safetensors");
  write_index({{"b", "m-1.safetensors"}, {"a", "m-2.safetensors"}});
  refused(Code::corrupt, "two tensors called \"b\"");
  write_index({{"b", "m-3.safetensors"}});
  refused(Code::not_found, "m-3.safetensors");
  for (const char* name :
       {"../m-1.safetensors", "/etc/passwd", "..", ".", "", "a/b", "a\\b", "C:x"}) {
    write_index({{"b", name}});
    refused(Code::corrupt, "expected the name of a file in the same folder");
  }
  write_index({{"b", std::string("m-1.safetensors\0x", 17)}});
  refused(Code::corrupt, "expected the name of a file in the same folder");
  write_index({{"b", 1}});
  refused(Code::corrupt, "the file of \"b\" is not a name");
  write_index(Json::array());
  refused(Code::corrupt, "expected an object weight_map");
  write("model.safetensors.index.json", "[]");
  refused(Code::corrupt, "expected an object");
  write("model.safetensors.index.json", "{");
  refused(Code::corrupt, "byte 1");
  write("model.safetensors.index.json", "");
  refused(Code::corrupt, "is empty");
}

TEST_F(CheckpointTest, SaysWhatIsMissing) {
  expect_refused(folder_ / "absent", Code::not_found, "no such file or folder");
  expect_refused(folder_, Code::not_found, "neither model.safetensors nor");
  write_tensors("model.safetensors", {{"a", 1}});
  expect_refused(folder_, Code::not_found, "needs its config.json beside the tensors");
  write("config.json", "[1]");
  expect_refused(folder_, Code::corrupt, "expected an object");
  write("config.json", "{\"a\":}");
  expect_refused(folder_, Code::corrupt, "config.json: byte 6");
  write("config.json", "{}");
  write("model.safetensors", "12345678{}");
  expect_refused(folder_, Code::corrupt, "model.safetensors: its header claims");
  expect_refused(folder_ / "config.json", Code::unsupported, "is not a checkpoint Krait reads");
}

TEST_F(CheckpointTest, SendsPicklesToTheConverter) {
  write("config.json", "{}");
  write("pytorch_model.bin", "PK");
  expect_refused(folder_, Code::unsupported, "scripts/convert_checkpoint.py");
  expect_refused(folder_ / "pytorch_model.bin", Code::unsupported, "convert_checkpoint.py");
  EXPECT_TRUE(fs::exists(test::source_dir() / "scripts/convert_checkpoint.py"));
}

TEST_F(CheckpointTest, CopiesMisalignedTensors) {
  write("config.json", "{}");
  const std::string header = R"({"odd":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                             R"("f":{"dtype":"F32","shape":[2],"data_offsets":[1,9]}})";
  const std::uint64_t length = header.size();
  const float values[] = {1.5, -2.5};
  std::string file(reinterpret_cast<const char*>(&length), 8);
  file += header + "x";
  file.append(reinterpret_cast<const char*>(values), sizeof values);
  write("model.safetensors", file);
  const auto checkpoint = opened(folder_);
  ASSERT_TRUE(checkpoint);
  const CheckpointTensor* tensor = checkpoint->find("f");
  ASSERT_TRUE(tensor);
  EXPECT_TRUE(is_aligned(*tensor));
  EXPECT_EQ(bytes(tensor->data, sizeof values), bytes(values, sizeof values));
  checkpoint->release(*tensor);
  EXPECT_EQ(bytes(tensor->data, sizeof values), bytes(values, sizeof values));
}

TEST_F(CheckpointTest, KeepsUnusableTensorsApartFromAbsentOnes) {
  write("config.json", "{}");
  const std::string header = R"({"w":{"dtype":"F8_E4M3","shape":[1],"data_offsets":[0,1]}})";
  const std::uint64_t length = header.size();
  write("model.safetensors", std::string(reinterpret_cast<const char*>(&length), 8) + header + "x");
  const auto checkpoint = opened(folder_);
  ASSERT_TRUE(checkpoint);
  EXPECT_NE(checkpoint->find("w"), nullptr);
  const auto used = checkpoint->get("w");
  EXPECT_EQ(used.status().code(), Code::unsupported);
  EXPECT_NE(used.message().find("F8_E4M3"), std::string::npos) << used.message();
  EXPECT_EQ(checkpoint->get("v").status().code(), Code::not_found);
  checkpoint->release(*checkpoint->find("w"));
}

TEST_F(CheckpointTest, ReleasedTensorsAreReadAgain) {
  write("config.json", "{}");
  const std::vector<float> values(100000, 7);
  const NamedTensor tensor{"w",           DType::f32,
                           Shape{100000}, reinterpret_cast<const std::byte*>(values.data()),
                           400000,        ""};
  ASSERT_TRUE(write_safetensors(folder_ / "model.safetensors", std::span(&tensor, 1), {}).ok());
  const auto checkpoint = opened(folder_);
  ASSERT_TRUE(checkpoint);
  const CheckpointTensor* read = checkpoint->find("w");
  ASSERT_TRUE(read);
  checkpoint->release(*read);
  EXPECT_TRUE(bytes(read->data, 400000) == bytes(values.data(), 400000));
}

TEST_F(CheckpointTest, ReadsSiblingsByPlainNameOnly) {
  write("config.json", "{}");
  write_tensors("model.safetensors", {{"a", 1}});
  write("tokenizer.json", "text");
  const auto checkpoint = opened(folder_);
  ASSERT_TRUE(checkpoint);
  const auto text = checkpoint->read_sibling("tokenizer.json");
  ASSERT_TRUE(text.ok()) << text.message();
  EXPECT_EQ(*text, "text");
  EXPECT_EQ(checkpoint->read_sibling("absent.json").status().code(), Code::not_found);
  for (const char* name : {"../x", "/etc/passwd", "..", ""})
    EXPECT_EQ(checkpoint->read_sibling(name).status().code(), Code::invalid_argument) << name;
}

TEST_F(CheckpointTest, CanBeMadeInMemory) {
  const auto values = std::make_shared<std::vector<float>>(6, 5.0f);
  const auto* data = reinterpret_cast<const std::byte*>(values->data());
  const CheckpointTensor b{"b", DType::f32, Shape{2, 3}, data, 24, ""};
  const CheckpointTensor a{"a", DType::bf16, Shape{4}, nullptr, 8, ""};
  const auto checkpoint = Checkpoint::from_memory({{"model_type", "mamba"}}, {b, a}, values);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.message();
  EXPECT_EQ((*checkpoint)->tensors()[0].name, "a");
  EXPECT_EQ(first((*checkpoint)->find("b")), 5);
  EXPECT_EQ((*checkpoint)->bytes(), 32);
  EXPECT_EQ((*checkpoint)->read_sibling("tokenizer.json").status().code(), Code::not_found);

  const auto refused = [](const Json& config, std::vector<CheckpointTensor> tensors) {
    return !Checkpoint::from_memory(config, std::move(tensors), nullptr).ok();
  };
  CheckpointTensor shifted = b;
  shifted.data = data + 1;
  CheckpointTensor small = b;
  small.bytes = 20;
  EXPECT_TRUE(refused(Json::array(), {}));
  EXPECT_TRUE(refused(Json::object(), {a, b, a}));
  EXPECT_TRUE(refused(Json::object(), {shifted}));
  EXPECT_TRUE(refused(Json::object(), {small}));
  EXPECT_FALSE(refused(Json::object(), {}));
}

}  // namespace
}  // namespace krait
