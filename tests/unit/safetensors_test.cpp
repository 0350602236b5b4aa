#include "runtime/model/safetensors.h"

#include <array>
#include <cstring>
#include <gtest/gtest.h>
#include <limits>
#include <string>
#include <unistd.h>
#include <vector>

#include "runtime/core/json.h"
#include "runtime/model/mapped_file.h"
#include "tests/helpers/files.h"

namespace krait {
namespace {

namespace fs = std::filesystem;

std::string length_of(std::uint64_t bytes) {
  return std::string(reinterpret_cast<const char*>(&bytes), sizeof bytes);
}
std::string file_of(std::string_view header, std::string_view data) {
  return length_of(header.size()) + std::string(header) + std::string(data);
}
std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text));
}

void expect_refused(std::string_view file, std::string_view part) {
  const Result<SafetensorsFile> result = SafetensorsFile::parse(bytes_of(file), "m.safetensors");
  ASSERT_FALSE(result.ok()) << file.substr(0, 200);
  EXPECT_EQ(result.status().code(), Code::corrupt);
  EXPECT_EQ(result.message().rfind("m.safetensors: ", 0), 0u) << result.message();
  EXPECT_NE(result.message().find(part), std::string::npos) << result.message();
  EXPECT_LT(result.message().size(), 400u);
}

/// One entry, with eight bytes of data.
void expect_entry_refused(std::string_view entry, std::string_view part) {
  expect_refused(file_of("{\"w\":" + std::string(entry) + "}", "12345678"), part);
}

TEST(Safetensors, ReadsTensorsAndMetadata) {
  const std::string file = file_of(
      R"({"b":{"dtype":"F32","shape":[1,2],"data_offsets":[4,12]},
          "__metadata__":{"format":"pt"},
          "a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]},
          "scalar":{"dtype":"U8","shape":[],"data_offsets":[12,13]},
          "none":{"dtype":"I64","shape":[3,0],"data_offsets":[12,12]}}   )",
      "aabbccccddddx");
  const Result<SafetensorsFile> result = SafetensorsFile::parse(bytes_of(file), "f");
  ASSERT_TRUE(result.ok()) << result.message();
  const auto tensors = result->tensors();
  ASSERT_EQ(tensors.size(), 4u);
  EXPECT_EQ(tensors[0].name, "a");
  EXPECT_EQ(tensors[1].name, "b");
  EXPECT_EQ(tensors[2].name, "none");
  EXPECT_EQ(tensors[3].name, "scalar");
  EXPECT_EQ(tensors[0].dtype, DType::bf16);
  EXPECT_EQ(to_string(tensors[1].shape), "[1, 2]");
  EXPECT_EQ(std::memcmp(tensors[1].data, "ccccdddd", 8), 0);
  EXPECT_EQ(tensors[2].bytes, 0);
  EXPECT_EQ(tensors[3].shape.rank(), 0);
  EXPECT_EQ(tensors[3].bytes, 1);
  EXPECT_EQ(result->metadata(), (Metadata{{"format", "pt"}}));
  EXPECT_EQ(result->find("b"), &tensors[1]);
  EXPECT_EQ(result->find("c"), nullptr);
}

TEST(Safetensors, ReadsWhatOtherLibrariesWrote) {
  const fs::path root = test::source_dir();
  const auto file =
      MappedFile::open(root / "tests/golden/data/models/mamba-bias-n8-1/model.safetensors");
  ASSERT_TRUE(file.ok()) << file.message();
  const auto parsed = SafetensorsFile::parse(file->bytes(), "model.safetensors");
  ASSERT_TRUE(parsed.ok()) << parsed.message();
  EXPECT_EQ(parsed->tensors().size(), 25u);
  const NamedTensor* x_proj = parsed->find("backbone.layers.0.mixer.x_proj.weight");
  ASSERT_NE(x_proj, nullptr);
  EXPECT_EQ(to_string(x_proj->shape), "[19, 144]");
  EXPECT_EQ(x_proj->dtype, DType::f32);
  EXPECT_TRUE(is_aligned(*x_proj));
}

TEST(Safetensors, KeepsTensorsItCannotUse) {
  const std::string file = file_of(
      R"({"f8":{"dtype":"F8_E4M3","shape":[4],"data_offsets":[0,4]},
          "f4":{"dtype":"F4","shape":[2],"data_offsets":[4,5]},
          "new":{"dtype":"X3","shape":[7],"data_offsets":[5,6]},
          "deep":{"dtype":"U8","shape":[1,1,1,1,2],"data_offsets":[6,8]},
          "used":{"dtype":"U8","shape":[1],"data_offsets":[8,9]}})",
      "123456789");
  const Result<SafetensorsFile> result = SafetensorsFile::parse(bytes_of(file), "f");
  ASSERT_TRUE(result.ok()) << result.message();
  const auto problem = [&](std::string_view name) { return result->find(name)->problem; };
  EXPECT_NE(problem("f8").find("F8_E4M3"), std::string::npos);
  EXPECT_NE(problem("f4").find("F4"), std::string::npos);
  EXPECT_NE(problem("new").find("X3"), std::string::npos);
  EXPECT_NE(problem("deep").find("5 dimensions"), std::string::npos);
  EXPECT_EQ(problem("used"), "");
  EXPECT_EQ(result->find("f8")->data, nullptr);
  EXPECT_EQ(check_tensor(*result->find("deep")).code(), Code::invalid_argument);
}

TEST(Safetensors, RefusesBadLengths) {
  expect_refused("", "has 0 bytes");
  expect_refused("1234567", "has 7 bytes");
  expect_refused(length_of(0), "does not begin with {");
  expect_refused(length_of(3) + "{}", "claims 3 bytes, but the file has only 10");
  expect_refused(length_of(100'000'001) + "{}", "at most 100000000");
  expect_refused(length_of(std::numeric_limits<std::uint64_t>::max()) + "{}", "at most 100000000");
  expect_refused(length_of(std::uint64_t{1} << 63) + "{}", "at most 100000000");
}

TEST(Safetensors, RefusesBadHeaders) {
  expect_refused(file_of("[]", ""), "does not begin with {");
  expect_refused(file_of(" {}", ""), "does not begin with {");
  expect_refused(file_of("{", ""), "header: byte 1");
  expect_refused(file_of(std::string("{}\0\0", 4), ""), "zero byte");
  expect_refused(file_of("{\"a\":\"\xff\"}", ""), "UTF-8");
  expect_refused(file_of(std::string(1000000, '[').replace(0, 1, "{\"a\":"), ""), "nested deeper");
  const std::string entry = R"({"dtype":"U8","shape":[1],"data_offsets":[0,1]})";
  expect_refused(file_of("{\"w\":" + entry + ",\"w\":" + entry + "}", "1"), "\"w\" occurs twice");
  expect_refused(file_of(R"({"__metadata__":[]})", ""), "__metadata__ is not an object");
  expect_refused(file_of(R"({"__metadata__":{"a":1}})", ""), "\"a\" is not a string");
  EXPECT_TRUE(SafetensorsFile::parse(bytes_of(file_of("{}", "")), "f").ok());
}

TEST(Safetensors, RefusesBadEntries) {
  expect_entry_refused("1", "expected an object");
  expect_entry_refused("{}", "dtype is not a string");
  expect_entry_refused(R"({"dtype":1,"shape":[8],"data_offsets":[0,8]})", "dtype is not a string");
  expect_entry_refused(R"({"dtype":"U8","data_offsets":[0,8]})", "shape is not a list");
  expect_entry_refused(R"({"dtype":"U8","shape":8,"data_offsets":[0,8]})", "shape is not a list");
  expect_entry_refused(R"({"dtype":"U8","shape":[8]})", "data_offsets is not a list");
  expect_entry_refused(R"({"dtype":"U8","shape":[8],"data_offsets":[0]})", "data_offsets is not");
  expect_entry_refused(R"({"dtype":"U8","shape":[8],"data_offsets":[0,8,9]})",
                       "data_offsets is not");
  expect_entry_refused(R"({"dtype":"U8","shape":[8],"data_offsets":["0",8]})", "are not two sizes");
  expect_entry_refused(R"({"dtype":"U8","shape":[8],"data_offsets":[0,8.0]})", "are not two sizes");
  expect_entry_refused(R"({"dtype":"U8","shape":[8],"data_offsets":[-8,0]})", "are not two sizes");
  expect_entry_refused(R"({"dtype":"U8","shape":["8"],"data_offsets":[0,8]})", "shape holds");
  expect_entry_refused(R"({"dtype":"U8","shape":[8.5],"data_offsets":[0,8]})", "shape holds");
  expect_entry_refused(R"({"dtype":"U8","shape":[-8,-1],"data_offsets":[0,8]})", "shape holds");
  expect_entry_refused(R"({"dtype":"U8","shape":[18446744073709551615],"data_offsets":[0,8]})",
                       "shape holds");
}

TEST(Safetensors, RefusesSizesThatContradictTheShape) {
  expect_entry_refused(R"({"dtype":"F32","shape":[3],"data_offsets":[0,8]})",
                       "F32 of shape [3] takes 12 bytes, but its data_offsets span 8");
  expect_entry_refused(R"({"dtype":"F16","shape":[],"data_offsets":[0,8]})", "takes 2 bytes");
  expect_entry_refused(R"({"dtype":"F8_E5M2","shape":[9],"data_offsets":[0,8]})", "takes 9 bytes");
  expect_entry_refused(R"({"dtype":"F4","shape":[15],"data_offsets":[0,8]})", "no possible size");
  expect_entry_refused(R"({"dtype":"F32","shape":[0],"data_offsets":[0,8]})", "takes 0 bytes");
}

TEST(Safetensors, RefusesShapesThatOverflow) {
  // 2^32 · 2^32 · 4 bytes is 0 in 64 bits.
  expect_entry_refused(R"({"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]})",
                       "no possible size");
  expect_entry_refused(R"({"dtype":"U8","shape":[9223372036854775807],"data_offsets":[0,8]})",
                       "no possible size");
  // Strides of an empty tensor would overflow as well.
  expect_entry_refused(R"({"dtype":"U8","shape":[0,4294967296,4294967296],"data_offsets":[0,0]})",
                       "no possible size");
  std::string shape = "[1";
  for (int i = 0; i < 100000; ++i) shape += ",1";
  expect_entry_refused(R"({"dtype":"U8","data_offsets":[0,1],"shape":)" + shape + "]}",
                       "claims 100001 dimensions");
}

TEST(Safetensors, RefusesOffsetsOutsideTheFile) {
  expect_entry_refused(R"({"dtype":"U8","shape":[9],"data_offsets":[0,9]})",
                       "ends at byte 9 of the data, which has only 8");
  expect_entry_refused(
      R"({"dtype":"U8","shape":[1],"data_offsets":[9223372036854775806,9223372036854775807]})",
      "which has only 8");
  expect_entry_refused(
      R"({"dtype":"U8","shape":[1],"data_offsets":[18446744073709551615,18446744073709551615]})",
      "are not two sizes");
  expect_entry_refused(R"({"dtype":"U8","shape":[1],"data_offsets":[8,0]})", "after its end");
}

TEST(Safetensors, RefusesOverlapsAndGaps) {
  const auto two = [](int a, int b, int c, int d) {
    const auto entry = [](int begin, int end) {
      return Json{{"dtype", "U8"}, {"shape", {end - begin}}, {"data_offsets", {begin, end}}};
    };
    return file_of(Json{{"a", entry(a, b)}, {"b", entry(c, d)}}.dump(), "12345678");
  };
  expect_refused(two(0, 4, 3, 8), "inside another tensor that ends at 4");
  expect_refused(two(0, 8, 0, 8), "inside another tensor");
  expect_refused(two(0, 8, 4, 4), "inside another tensor");
  expect_refused(two(0, 4, 5, 8), "bytes 4 to 5 of the data, before tensor \"b\"");
  expect_refused(two(1, 4, 4, 8), "bytes 0 to 1");
  expect_refused(two(0, 4, 4, 7), "end at byte 7 of the data, which has 8");
  expect_refused(file_of("{}", "x"), "end at byte 0 of the data, which has 1");
  for (const std::string& file : {two(0, 4, 4, 8), two(4, 8, 0, 4), two(0, 8, 8, 8)})
    EXPECT_TRUE(SafetensorsFile::parse(bytes_of(file), "f").ok());
}

TEST(Safetensors, MessagesSurviveHostileNames) {
  const std::string name(1000000, 'n');
  expect_refused(file_of("{\"" + name + "\":1}", ""), "nnn\"...: expected an object");
  expect_refused(file_of(R"({"a\n\u001b[31m":1})", ""), R"("a\n\u001b[31m")");
}

TEST(Safetensors, TruncationIsAlwaysAnError) {
  const std::string file =
      file_of(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", "12345678");
  ASSERT_TRUE(SafetensorsFile::parse(bytes_of(file), "f").ok());
  for (std::size_t size = 0; size < file.size(); ++size) {
    // A copy of exactly that size, so that a sanitizer sees a read beyond it.
    const std::vector<char> cut(file.begin(), file.begin() + static_cast<std::ptrdiff_t>(size));
    EXPECT_FALSE(SafetensorsFile::parse(std::as_bytes(std::span(cut)), "f").ok()) << size;
  }
}

TEST(Safetensors, TellsMisalignedTensors) {
  alignas(8) std::array<std::byte, 32> memory{};
  NamedTensor tensor;
  tensor.dtype = DType::f32;
  tensor.data = memory.data() + 4;
  EXPECT_TRUE(is_aligned(tensor));
  tensor.data = memory.data() + 2;
  EXPECT_FALSE(is_aligned(tensor));
  tensor.dtype = DType::bf16;
  EXPECT_TRUE(is_aligned(tensor));
  tensor.data = memory.data() + 1;
  EXPECT_FALSE(is_aligned(tensor));
  tensor.dtype = DType::u8;
  EXPECT_TRUE(is_aligned(tensor));
}

class SafetensorsWriter : public testing::Test {
 protected:
  ~SafetensorsWriter() override { fs::remove(path_); }
  template <class Element>
  static NamedTensor tensor_of(std::string name, DType dtype, Shape shape,
                               const std::vector<Element>& values) {
    return {std::move(name),
            dtype,
            shape,
            reinterpret_cast<const std::byte*>(values.data()),
            static_cast<std::int64_t>(values.size() * sizeof(Element)),
            ""};
  }
  fs::path path_ =
      fs::path(testing::TempDir()) / ("krait-" + std::to_string(::getpid()) + ".safetensors");
  const std::vector<float> floats_{1, 2, 3, 4, 5, 6};
  const std::vector<std::uint8_t> bytes_{7, 8, 9};
  const std::vector<std::int64_t> longs_{-1};
};

TEST_F(SafetensorsWriter, WritesWhatItReads) {
  const NamedTensor tensors[] = {
      tensor_of("z.bytes", DType::u8, {3}, bytes_), tensor_of("b", DType::f32, {3, 2}, floats_),
      tensor_of("a", DType::f32, {6}, floats_), tensor_of("long \u00e9", DType::i64, {}, longs_),
      tensor_of("empty", DType::f16, {0, 5}, std::vector<std::uint16_t>{})};
  const Metadata metadata{{"krait.kind", "state"}, {"text", "\n\"\u00e9"}};
  const Status status = write_safetensors(path_, tensors, metadata);
  ASSERT_TRUE(status.ok()) << status.message();

  const auto file = MappedFile::open(path_);
  ASSERT_TRUE(file.ok()) << file.message();
  const auto parsed = SafetensorsFile::parse(file->bytes(), "f");
  ASSERT_TRUE(parsed.ok()) << parsed.message();
  EXPECT_EQ(parsed->metadata(), metadata);
  ASSERT_EQ(parsed->tensors().size(), std::size(tensors));
  for (const NamedTensor& tensor : tensors) {
    const NamedTensor* read = parsed->find(tensor.name);
    ASSERT_NE(read, nullptr) << tensor.name;
    EXPECT_EQ(read->dtype, tensor.dtype);
    EXPECT_EQ(read->shape, tensor.shape);
    ASSERT_EQ(read->bytes, tensor.bytes);
    EXPECT_TRUE(std::equal(tensor.data, tensor.data + tensor.bytes, read->data));
    EXPECT_TRUE(is_aligned(*read));
  }
  std::uint64_t header = 0;
  std::memcpy(&header, file->bytes().data(), 8);
  EXPECT_EQ((header + 8) % 64, 0u);
}

TEST_F(SafetensorsWriter, OrderOfArgumentsDoesNotMatter) {
  NamedTensor tensors[] = {tensor_of("b", DType::f32, {6}, floats_),
                           tensor_of("a", DType::u8, {3}, bytes_),
                           tensor_of("c", DType::f32, {6}, floats_)};
  const auto written = [&] {
    EXPECT_TRUE(write_safetensors(path_, tensors, {{"k", "v"}}).ok());
    const auto file = MappedFile::open(path_);
    return file.ok() ? std::string(file->text()) : file.message();
  };
  const std::string first = written();
  std::swap(tensors[0], tensors[2]);
  std::swap(tensors[1], tensors[2]);
  EXPECT_EQ(written(), first);
}

TEST_F(SafetensorsWriter, WritesNoTensors) {
  ASSERT_TRUE(write_safetensors(path_, {}, {}).ok());
  const auto file = MappedFile::open(path_);
  ASSERT_TRUE(file.ok()) << file.message();
  EXPECT_TRUE(SafetensorsFile::parse(file->bytes(), "f").ok());
}

TEST_F(SafetensorsWriter, RefusesInconsistentTensors) {
  const auto refused = [&](std::vector<NamedTensor> tensors, std::string_view part) {
    const Status status = write_safetensors(path_, tensors, {});
    EXPECT_EQ(status.code(), Code::invalid_argument);
    EXPECT_NE(status.message().find(part), std::string::npos) << status.message();
    EXPECT_FALSE(fs::exists(path_));
  };
  const NamedTensor good = tensor_of("a", DType::f32, {6}, floats_);
  refused({good, good}, "\"a\": the name is taken");
  refused({tensor_of("__metadata__", DType::f32, {6}, floats_)}, "the name is taken");
  refused({tensor_of("a", DType::f32, {7}, floats_)}, "f32 [7] takes 28 bytes, got 24");
  refused({tensor_of("a", DType::f32, {dims::T}, floats_)}, "shape [T]");
  refused({tensor_of("a", DType::f32, {-6}, floats_)}, "shape [-6]");
  refused({tensor_of("a", DType::f32, {1, 1, 1, 1, 6}, floats_)}, "more than 4 dimensions");
  refused({tensor_of("a", DType::f32, {std::int64_t{1} << 40, std::int64_t{1} << 40}, floats_)},
          "takes too many bytes");
  refused({tensor_of("\xff", DType::f32, {6}, floats_)}, "UTF-8");
  NamedTensor missing = good;
  missing.data = nullptr;
  refused({missing}, "no data");
  NamedTensor unusable = good;
  unusable.problem = "elements of type F4";
  refused({unusable}, "elements of type F4");
}

TEST_F(SafetensorsWriter, ReportsAFolderThatDoesNotExist) {
  const Status status = write_safetensors(path_ / "x", {}, {});
  EXPECT_EQ(status.code(), Code::not_found) << status.message();
}

}  // namespace
}  // namespace krait
