#include "runtime/model/gguf.h"

#include <cstring>
#include <limits>

#include "runtime/model/gguf_writer.h"
#include "runtime/model/mapped_file.h"
#include "tests/helpers/expect.h"
#include "tests/helpers/files.h"
#include "tests/helpers/gguf_bytes.h"

namespace krait {
namespace {

using test::gguf_array;
using test::gguf_text;
using test::gguf_texts;
using test::GgufBytes;
using test::is_error;
using test::is_ok;
using test::le;
using test::must;

constexpr std::uint32_t kF32 = 0, kF16 = 1, kQ2K = 10, kQ8_0 = 8, kQ4K = 12, kUnknown = 77;

Result<GgufFile> parse(std::string_view file) {
  return GgufFile::parse(std::as_bytes(std::span(file)), "m.gguf");
}
void expect_refused(const GgufBytes& file, std::string_view part) {
  const auto result = parse(file.str());
  EXPECT_TRUE(is_error(result, Code::corrupt, part));
  EXPECT_TRUE(result.message().starts_with("m.gguf: ")) << result.message();
  EXPECT_LT(result.message().size(), 400u);
}

TEST(Gguf, ReadsMetadataOfEveryType) {
  GgufBytes bytes;
  bytes.add("u8", GgufType::u8, le(std::uint8_t{200}));
  bytes.add("i8", GgufType::i8, le(std::int8_t{-3}));
  bytes.add("u16", GgufType::u16, le(std::uint16_t{60000}));
  bytes.add("i16", GgufType::i16, le(std::int16_t{-300}));
  bytes.add("u32", GgufType::u32, le(4000000000u));
  bytes.add("i32", GgufType::i32, le(-70000));
  bytes.add("u64", GgufType::u64, le(std::uint64_t{1} << 40));
  bytes.add("big", GgufType::u64, le(~std::uint64_t{0}));
  bytes.add("i64", GgufType::i64, le(std::int64_t{-1} << 40));
  bytes.add("f32", GgufType::f32, le(0.5f));
  bytes.add("f64", GgufType::f64, le(0.1));
  bytes.add("yes", GgufType::boolean, le(std::uint8_t{1}));
  bytes.add("no", GgufType::boolean, le(std::uint8_t{0}));
  bytes.text("text", "Größe");
  bytes.add("texts", GgufType::array, gguf_texts({"a", "", "bc"}));
  bytes.add("numbers", GgufType::array,
            gguf_array(GgufType::i16, 3,
                       le(std::int16_t{1}) + le(std::int16_t{-2}) + le(std::int16_t{3})));
  bytes.add("floats", GgufType::array, gguf_array(GgufType::f32, 2, le(1.5f) + le(-2.0f)));
  bytes.add("none", GgufType::array, gguf_array(GgufType::u64, 0, ""));
  bytes.add("nested", GgufType::array,
            gguf_array(GgufType::array, 2, gguf_texts({"x"}) + gguf_texts({})));
  for (const std::uint32_t version : {2u, 3u}) {
    bytes.version = version;
    const std::string memory = bytes.str();
    const GgufFile file = must(parse(memory));
    EXPECT_EQ(file.metadata().size(), 19u);
    const auto whole = [&](std::string_view key) { return file.value(key)->whole_number(); };
    EXPECT_EQ(whole("u8"), 200);
    EXPECT_EQ(whole("i8"), -3);
    EXPECT_EQ(whole("u16"), 60000);
    EXPECT_EQ(whole("i16"), -300);
    EXPECT_EQ(whole("u32"), 4000000000);
    EXPECT_EQ(whole("i32"), -70000);
    EXPECT_EQ(whole("u64"), std::int64_t{1} << 40);
    EXPECT_EQ(whole("big"), std::nullopt);
    EXPECT_EQ(whole("i64"), std::int64_t{-1} << 40);
    EXPECT_EQ(whole("f32"), std::nullopt);
    EXPECT_EQ(whole("text"), std::nullopt);
    EXPECT_EQ(file.value("f32")->number(), 0.5);
    EXPECT_EQ(file.value("f64")->number(), 0.1);
    EXPECT_EQ(file.value("i8")->number(), -3.0);
    EXPECT_EQ(file.value("yes")->number(), std::nullopt);
    EXPECT_EQ(file.value("yes")->boolean(), true);
    EXPECT_EQ(file.value("no")->boolean(), false);
    EXPECT_EQ(file.value("u8")->boolean(), std::nullopt);
    EXPECT_EQ(file.value("text")->text(), "Größe");
    EXPECT_EQ(file.value("texts")->text(), std::nullopt);
    EXPECT_EQ(file.value("texts")->texts(), (std::vector<std::string_view>{"a", "", "bc"}));
    EXPECT_EQ(file.value("texts")->numbers(), std::nullopt);
    EXPECT_EQ(file.value("numbers")->whole_numbers(), (std::vector<std::int64_t>{1, -2, 3}));
    EXPECT_EQ(file.value("numbers")->texts(), std::nullopt);
    EXPECT_EQ(file.value("floats")->numbers(), (std::vector<double>{1.5, -2}));
    EXPECT_EQ(file.value("floats")->whole_numbers(), std::nullopt);
    EXPECT_EQ(file.value("none")->whole_numbers(), std::vector<std::int64_t>());
    EXPECT_EQ(file.value("nested")->texts(), std::nullopt);
    EXPECT_EQ(file.value("nested")->count, 2u);
    EXPECT_EQ(file.value("absent"), nullptr);
  }
}

TEST(Gguf, ReadsTensorsWithExtentsReversed) {
  GgufBytes bytes;
  bytes.tensor("b", {2, 3}, kF32, 24, 'b').tensor("q", {256, 5}, kQ4K, 5 * 144, 'q');
  bytes.tensor("a", {4}, kF16, 8, 'a').tensor("none", {7, 0}, kF32, 0, '-');
  bytes.tensor("one", {}, kF32, 4, '1');
  const std::string memory = bytes.str();
  const GgufFile file = must(parse(memory));
  ASSERT_EQ(file.tensors().size(), 5u);
  EXPECT_EQ(file.tensors()[0].name, "a");
  const auto shape = [&](std::string_view name) { return to_string(file.find(name)->shape); };
  EXPECT_EQ(shape("b"), "[3, 2]");
  EXPECT_EQ(shape("q"), "[5, 256]");
  EXPECT_EQ(shape("a"), "[4]");
  EXPECT_EQ(shape("none"), "[0, 7]");
  EXPECT_EQ(shape("one"), "[]");
  EXPECT_EQ(file.find("q")->dtype, DType::q4_k);
  EXPECT_EQ(file.find("q")->bytes, 5 * 144);
  EXPECT_EQ(static_cast<char>(file.find("q")->data[5 * 144 - 1]), 'q');
  EXPECT_EQ(static_cast<char>(file.find("b")->data[0]), 'b');
  for (const NamedTensor& tensor : file.tensors()) EXPECT_TRUE(is_ok(check_tensor(tensor)));
}

TEST(Gguf, OtherAlignments) {
  for (const std::uint32_t alignment : {1u, 8u, 256u}) {
    GgufBytes bytes;
    bytes.alignment = alignment;
    bytes.number("general.alignment", alignment);
    bytes.tensor("a", {1}, kF32, 4, 'a').tensor("b", {1}, kF32, 4, 'b');
    const std::string memory = bytes.str();
    const GgufFile file = must(parse(memory));
    EXPECT_EQ(static_cast<char>(*file.find("b")->data), 'b') << alignment;
  }
  for (const std::uint32_t alignment : {0u, 24u, 1u << 17}) {
    expect_refused(GgufBytes().number("general.alignment", alignment), "general.alignment");
  }
  expect_refused(GgufBytes().text("general.alignment", "32"), "general.alignment");
}

TEST(Gguf, KeepsTensorsItCannotUse) {
  GgufBytes bytes;
  bytes.tensor("q2", {256}, kQ2K, 84, '2').tensor("new", {3}, kUnknown, 1, 'n');
  const std::string memory = bytes.str();
  const GgufFile file = must(parse(memory));
  EXPECT_NE(file.find("q2")->problem.find("Q2_K"), std::string::npos);
  EXPECT_NE(file.find("new")->problem.find("number 77"), std::string::npos);
  EXPECT_EQ(file.find("q2")->data, nullptr);
}

TEST(Gguf, RefusesOtherFiles) {
  EXPECT_TRUE(is_error(parse(""), Code::corrupt, "does not begin with GGUF"));
  EXPECT_TRUE(is_error(parse("GGU"), Code::corrupt, "does not begin with GGUF"));
  EXPECT_TRUE(is_error(parse("PK\3\4 and so on"), Code::corrupt, "does not begin with GGUF"));
  GgufBytes bytes;
  for (const std::uint32_t version : {1u, 4u, 0x10002u}) {
    bytes.version = version;
    EXPECT_TRUE(is_error(parse(bytes.str()), Code::unsupported, "version"));
  }
  bytes.version = 0x03000000;
  EXPECT_TRUE(is_error(parse(bytes.str()), Code::unsupported, "big-endian"));
}

TEST(Gguf, RefusesEveryBeginningOfAFile) {
  GgufBytes bytes;
  bytes.text("general.architecture", "mamba").number("n", 3);
  bytes.add("list", GgufType::array, gguf_texts({"ab", "c"}));
  bytes.tensor("a", {8}, kF32, 32, 'a').tensor("b", {32}, kQ8_0, 34, 'b');
  const std::string whole = bytes.str();
  ASSERT_TRUE(is_ok(parse(whole)));
  for (std::size_t size = 0; size < whole.size(); ++size) {
    // A copy of its own, so that the sanitizer sees every byte that is read behind the end.
    const std::vector<char> part(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size));
    EXPECT_TRUE(is_error(parse({part.data(), part.size()}), Code::corrupt, "m.gguf")) << size;
  }
}

TEST(Gguf, SurvivesEveryChangedByte) {
  GgufBytes bytes;
  bytes.text("general.architecture", "mamba").number("n", 3);
  bytes.add("list", GgufType::array, gguf_texts({"ab", "c"}));
  bytes.tensor("a", {8}, kF32, 32, 'a').tensor("b", {32}, kQ8_0, 34, 'b');
  const std::string whole = bytes.str();
  int accepted = 0;
  for (std::size_t at = 0; at < whole.size(); ++at) {
    for (const int change : {1, 0x80, 0xff}) {
      std::string changed = whole;
      changed[at] = static_cast<char>(changed[at] ^ change);
      const auto file = parse(changed);
      if (!file.ok()) continue;
      ++accepted;
      for (const NamedTensor& tensor : file->tensors()) {
        if (tensor.problem.empty()) {
          EXPECT_TRUE(is_ok(check_tensor(tensor)));
          EXPECT_GE(reinterpret_cast<const char*>(tensor.data), changed.data());
          EXPECT_LE(reinterpret_cast<const char*>(tensor.data) + tensor.bytes,
                    changed.data() + changed.size());
        }
      }
    }
  }
  EXPECT_GT(accepted, 0);
}

TEST(Gguf, RefusesImpossibleCounts) {
  constexpr std::uint64_t kHuge = ~std::uint64_t{0};
  GgufBytes bytes;
  bytes.keys = kHuge;
  expect_refused(bytes, "was it cut off");
  bytes = {};
  bytes.tensors = kHuge;
  expect_refused(bytes, "was it cut off");
  for (const std::uint64_t count : {kHuge, kHuge / 8 + 2, std::uint64_t{1} << 61}) {
    for (const GgufType type : {GgufType::f64, GgufType::u8, GgufType::text, GgufType::array}) {
      bytes = {};
      bytes.add("list", GgufType::array, gguf_array(type, count, "12345678"));
      expect_refused(bytes, "key \"list\"");
    }
  }
  bytes = {};
  bytes.add("text", GgufType::text, le(kHuge));
  expect_refused(bytes, "was it cut off");
  bytes = {};
  bytes.metadata = le(kHuge);
  bytes.keys = 1;
  expect_refused(bytes, "was it cut off");
  bytes = {};
  bytes.entries = le(kHuge);
  bytes.tensors = 1;
  expect_refused(bytes, "was it cut off");
}

TEST(Gguf, RefusesBadMetadata) {
  expect_refused(GgufBytes().number("a", 1).number("b", 2).number("a", 3), "\"a\" occurs twice");
  expect_refused(GgufBytes().add("a", static_cast<GgufType>(13), "12345678"), "type 13");
  expect_refused(
      GgufBytes().add("a", GgufType::array, gguf_array(static_cast<GgufType>(99), 0, "")),
      "type 99");
  std::string nested = gguf_array(GgufType::u8, 1, "x");
  for (int depth = 1; depth < 4; ++depth) nested = gguf_array(GgufType::array, 1, nested);
  const std::string deep_enough = GgufBytes().add("a", GgufType::array, nested).str();
  EXPECT_TRUE(is_ok(parse(deep_enough)));
  for (int depth = 4; depth < 10000; ++depth) {
    nested.insert(0, le(static_cast<std::uint32_t>(GgufType::array)) + le(std::uint64_t{1}));
    if (depth == 4) expect_refused(GgufBytes().add("a", GgufType::array, nested), "nest deeper");
  }
  expect_refused(GgufBytes().add("a", GgufType::array, nested), "nest deeper");
}

TEST(Gguf, RefusesBadTensors) {
  constexpr std::uint64_t kLarge = std::uint64_t{1} << 62;
  const auto one = [](std::initializer_list<std::uint64_t> extents, std::uint32_t type,
                      std::uint64_t offset) {
    GgufBytes bytes;
    bytes.tensor("w", extents, type, offset);
    bytes.data.assign(64, 'x');
    return bytes;
  };
  EXPECT_TRUE(is_ok(parse(one({16}, kF32, 0).str())));
  expect_refused(one({1, 1, 1, 1, 1}, kF32, 0), "5 dimensions");
  expect_refused(one({kLarge, 4}, kF32, 0), "too many elements");
  expect_refused(one({~std::uint64_t{0}}, kF32, 0), "too many elements");
  expect_refused(one({kLarge, 0, kLarge}, kF32, 0), "too many elements");
  expect_refused(one({kLarge}, kF32, 0), "too many bytes");
  // Of an empty tensor, the strides would be too many.
  expect_refused(one({kLarge, 0}, kF32, 0), "too many bytes");
  expect_refused(one({17}, kF32, 0), "has only 64");
  expect_refused(one({8}, kF32, 64), "has only 64");
  expect_refused(one({1}, kF32, ~std::uint64_t{31}), "has only 64");
  expect_refused(one({1}, kUnknown, 96), "has only 64");
  expect_refused(one({1}, kF32, 4), "multiple of 32");
  expect_refused(one({31}, kQ8_0, 0), "whole blocks of 32");
  expect_refused(one({}, kQ8_0, 0), "whole blocks of 32");
  expect_refused(one({128, 2}, kQ4K, 0), "whole blocks of 256");

  GgufBytes bytes;
  bytes.tensor("a", {16}, kF32, 0).tensor("b", {1}, kF32, 32);
  bytes.data.assign(64, 'x');
  expect_refused(bytes, "inside another tensor");
  bytes = {};
  bytes.tensor("a", {1}, kF32, 0).tensor("a", {1}, kF32, 32);
  bytes.data.assign(64, 'x');
  expect_refused(bytes, "\"a\" occurs twice");
}

TEST(Gguf, LargeVocabularies) {
  constexpr std::uint64_t kCount = 1'000'000;
  std::string elements;
  for (std::uint64_t i = 0; i < kCount; ++i) elements += gguf_text(std::to_string(i));
  GgufBytes bytes;
  bytes.add("tokens", GgufType::array, gguf_array(GgufType::text, kCount, elements));
  const std::string memory = bytes.str();
  const GgufFile file = must(parse(memory));
  const auto texts = file.value("tokens")->texts();
  ASSERT_TRUE(texts);
  ASSERT_EQ(texts->size(), kCount);
  EXPECT_EQ(texts->back(), "999999");
}

// ---- Writing ------------------------------------------------------------------------------------

NamedTensor tensor_of(const std::string& name, DType dtype, const Shape& shape) {
  return {name, dtype, shape, nullptr, bytes_of(dtype, shape.elements()), {}};
}

TEST(GgufWriter, WhatIsWrittenIsRead) {
  const test::TemporaryFolder folder;
  const std::string first =
      GgufBytes()
          .add("list", GgufType::array, gguf_array(GgufType::array, 1, gguf_texts({"x"})))
          .str();
  const GgufFile other = must(parse(first));
  GgufMetadata metadata;
  metadata.add("u32", std::uint32_t{7});
  metadata.add("f32", 0.25f);
  metadata.add("bool", true);
  metadata.add("text", "a text");
  metadata.add("texts", std::vector<std::string>{"a", "bc"});
  metadata.add("i32s", std::vector<std::int32_t>{-1, 2});
  metadata.add("copied", *other.value("list"));
  const std::vector<NamedTensor> tensors = {tensor_of("w", DType::q8_0, {3, 64}),
                                            tensor_of("v", DType::f32, {5}),
                                            tensor_of("h", DType::bf16, {2, 1, 3})};
  std::vector<std::byte> bytes;
  const auto fill = [&](std::size_t i) -> Result<std::span<const std::byte>> {
    bytes.assign(static_cast<std::size_t>(tensors[i].bytes), static_cast<std::byte>('a' + i));
    return std::span<const std::byte>(bytes);
  };
  const auto path = folder / "new.gguf";
  ASSERT_TRUE(is_ok(write_gguf(path, metadata, tensors, fill)));
  const MappedFile file = must(MappedFile::open(path));
  const GgufFile gguf = must(GgufFile::parse(file.bytes(), "new"));
  EXPECT_EQ(gguf.metadata().size(), 7u);
  EXPECT_EQ(gguf.value("u32")->whole_number(), 7);
  EXPECT_EQ(gguf.value("f32")->number(), 0.25);
  EXPECT_EQ(gguf.value("bool")->boolean(), true);
  EXPECT_EQ(gguf.value("text")->text(), "a text");
  EXPECT_EQ(gguf.value("texts")->texts(), (std::vector<std::string_view>{"a", "bc"}));
  EXPECT_EQ(gguf.value("i32s")->whole_numbers(), (std::vector<std::int64_t>{-1, 2}));
  EXPECT_EQ(gguf.value("copied")->count, 1u);
  ASSERT_EQ(gguf.tensors().size(), 3u);
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const NamedTensor* tensor = gguf.find(tensors[i].name);
    ASSERT_NE(tensor, nullptr);
    EXPECT_EQ(tensor->dtype, tensors[i].dtype);
    EXPECT_EQ(tensor->shape, tensors[i].shape);
    EXPECT_EQ(static_cast<std::size_t>(tensor->data - file.bytes().data()) % 32, 0u);
    for (std::int64_t at = 0; at < tensor->bytes; ++at)
      ASSERT_EQ(tensor->data[at], static_cast<std::byte>('a' + i));
  }
}

TEST(GgufWriter, AFailureLeavesTheOldFile) {
  const test::TemporaryFolder folder;
  const auto path = folder / "a.gguf";
  test::write_file(path, "the old file");
  const std::vector<NamedTensor> two = {tensor_of("a", DType::f32, {8}),
                                        tensor_of("b", DType::f32, {8})};
  const std::vector<std::byte> bytes(32);
  const auto fails = [&](std::size_t i) -> Result<std::span<const std::byte>> {
    if (i == 1) return Status(Code::corrupt, "no more");
    return std::span<const std::byte>(bytes);
  };
  EXPECT_TRUE(is_error(write_gguf(path, {}, two, fails), Code::corrupt, "no more"));
  const auto too_few = [&](std::size_t) -> Result<std::span<const std::byte>> {
    return std::span(bytes).first(31);
  };
  EXPECT_TRUE(is_error(write_gguf(path, {}, two, too_few), Code::invalid_argument, "expected 32"));
  const auto never = [](std::size_t) -> Result<std::span<const std::byte>> {
    return Status(Code::internal, "asked");
  };
  const std::vector<NamedTensor> twice = {two[0], two[0]};
  EXPECT_TRUE(is_error(write_gguf(path, {}, twice, never), Code::invalid_argument, "is taken"));
  const std::vector<NamedTensor> odd = {tensor_of("a", DType::u8, {8})};
  EXPECT_TRUE(is_error(write_gguf(path, {}, odd, never), Code::invalid_argument, "has no u8"));
  std::vector<NamedTensor> wrong = two;
  wrong[0].bytes = 33;
  EXPECT_TRUE(is_error(write_gguf(path, {}, wrong, never), Code::invalid_argument, "32 bytes"));
  EXPECT_EQ(test::read_file(path), "the old file");
  int files = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(path.parent_path()))
    ++files;
  EXPECT_EQ(files, 1);
}

}  // namespace
}  // namespace krait
