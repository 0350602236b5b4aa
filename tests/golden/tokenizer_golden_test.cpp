// The tokenizer against other implementations: texts, ids and decoded text from files.
#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "tests/helpers/files.h"
#include <krait/tokenizer.h>

namespace krait {
namespace {

using Json = nlohmann::json;
using Ids = std::vector<std::int32_t>;

const std::filesystem::path kRoot = test::source_dir();
const std::filesystem::path kData = kRoot / "tests" / "golden" / "data";

std::string read(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  EXPECT_TRUE(in) << path;
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

/// Any text as printable ASCII.
std::string shown(const std::string& text) {
  return Json(text).dump(-1, ' ', true, Json::error_handler_t::replace);
}

Ids encode(const Tokenizer& tokenizer, const std::string& text, EncodeOptions options = {}) {
  auto ids = tokenizer.encode(text, options);
  EXPECT_TRUE(ids.ok()) << ids.message();
  return ids.ok() ? *ids : Ids{-1};
}

std::string decode(const Tokenizer& tokenizer, const Ids& ids, DecodeOptions options = {}) {
  auto text = tokenizer.decode(ids, options);
  EXPECT_TRUE(text.ok()) << text.message();
  return text.ok() ? *text : "";
}

TEST(TokenizerGolden, NeoxAsHuggingFace) {
  auto tokenizer = Tokenizer::load(kData / "gpt-neox-20b.json");
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.message();
  EXPECT_EQ(tokenizer->vocab_size(), 50277);
  EXPECT_EQ(tokenizer->eos(), 0);
  const Json cases = Json::parse(read(kData / "tokenizer-neox.json"));
  ASSERT_GE(cases.size(), 20u);
  for (const Json& each : cases) {
    const std::string text = each["text"];
    const Ids ids = each["ids"];
    EXPECT_EQ(encode(*tokenizer, text), ids) << shown(text);
    EXPECT_EQ(decode(*tokenizer, ids), each["decoded"].get<std::string>()) << shown(text);
  }
}

TEST(TokenizerGolden, ClassicsAsLlamaCppAndReference) {
  auto tokenizer = Tokenizer::load(kRoot / "assets" / "classics-mamba");
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.message();
  EXPECT_EQ(tokenizer->vocab_size(), 4096);
  const Json cases = Json::parse(read(kData / "tokenizer-classics.json"))["strings"];
  ASSERT_GE(cases.size(), 40u);
  for (const Json& each : cases) {
    const std::string text = each["text"];
    const Ids reference = each["hf_reference"];
    EXPECT_EQ(encode(*tokenizer, text), reference) << shown(text);
    EXPECT_EQ(decode(*tokenizer, reference), text);
    // llama.cpp was told to take special tokens as plain text.
    const Ids llamacpp = each["llamacpp"];
    EXPECT_EQ(encode(*tokenizer, text, {.parse_special = false}), llamacpp) << shown(text);
    EXPECT_EQ(decode(*tokenizer, llamacpp), text);
  }
}

TEST(TokenizerGolden, WholeBookRoundTrips) {
  const std::string book = read(kData / "carroll-alice.txt");
  for (const auto& path : {kData / "gpt-neox-20b.json", kRoot / "assets" / "classics-mamba"}) {
    auto tokenizer = Tokenizer::load(path);
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.message();
    EXPECT_EQ(decode(*tokenizer, encode(*tokenizer, book)), book) << path;
  }
}

/// One file of scripts/make_tokenizer_vectors.py.
class TokenizerVectors : public testing::TestWithParam<std::filesystem::path> {};

void check_case(const Tokenizer& tokenizer, const Json& each) {
  const Ids ids = each["ids"];
  const std::string decoded = each["decoded"];
  EXPECT_EQ(shown(decode(tokenizer, ids)), shown(decoded)) << each["ids"];

  auto stream = tokenizer.stream();
  ASSERT_TRUE(stream.ok()) << stream.message();
  std::string streamed;
  for (const std::int32_t id : ids) streamed += *stream->push(id);
  streamed += *stream->flush();
  EXPECT_EQ(shown(streamed), shown(decoded)) << each["ids"];

  if (!each.contains("text")) return;
  const std::string text = each["text"];
  EXPECT_EQ(encode(tokenizer, text), ids) << shown(text);
  EXPECT_EQ(encode(tokenizer, text, {.add_special = true}), each.value("special_ids", ids))
      << shown(text);
  EXPECT_EQ(encode(tokenizer, text, {.parse_special = false}), each.value("plain_ids", ids))
      << shown(text);
  EXPECT_EQ(shown(decode(tokenizer, ids, {.skip_special = true})),
            shown(each.value("decoded_skipping_special", decoded)));
}

TEST_P(TokenizerVectors, AsHuggingFace) {
  const Json file = Json::parse(read(GetParam()));
  ASSERT_FALSE(file["variants"].empty());
  for (const Json& variant : file["variants"]) {
    Json parts = file["tokenizer"];
    parts.update(variant["set"]);
    SCOPED_TRACE(variant["set"].dump(-1, ' ', true));
    auto tokenizer = Tokenizer::from_json(parts.dump());
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.message();
    ASSERT_FALSE(variant["cases"].empty());
    for (const Json& each : variant["cases"]) check_case(*tokenizer, each);
  }
}

std::vector<std::filesystem::path> vector_files() {
  std::vector<std::filesystem::path> files;
  std::error_code error;  // an empty list fails the suite, an exception here would end it
  for (const auto& entry :
       std::filesystem::directory_iterator(kData / "tokenizer_vectors", error)) {
    files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

INSTANTIATE_TEST_SUITE_P(Files, TokenizerVectors, testing::ValuesIn(vector_files()),
                         [](const auto& info) { return info.param.stem().string(); });

/// The pieces of a file's vocabulary by id, and its added tokens.
TokenizerParts parts_of(const Json& file) {
  TokenizerParts parts;
  const Json& model = file["model"];
  parts.pieces.resize(model["vocab"].size());
  for (const auto& [piece, id] : model["vocab"].items()) parts.pieces.at(id) = piece;
  for (const Json& token : file["added_tokens"]) {
    parts.added.push_back({token["id"], token["content"], token["special"]});
  }
  return parts;
}

TEST(TokenizerGolden, ByteLevelPartsAsTheirFile) {
  const Json file = Json::parse(read(kRoot / "assets" / "classics-mamba" / "tokenizer.json"));
  TokenizerParts parts = parts_of(file);
  for (const Json& merge : file["model"]["merges"]) {
    parts.merges.push_back(merge.is_string()
                               ? merge.get<std::string>()
                               : merge[0].get<std::string>() + " " + merge[1].get<std::string>());
  }
  auto tokenizer = Tokenizer::from_parts(std::move(parts));
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.message();
  const Json cases = Json::parse(read(kData / "tokenizer-classics.json"))["strings"];
  for (const Json& each : cases) {
    const std::string text = each["text"];
    EXPECT_EQ(encode(*tokenizer, text), each["hf_reference"].get<Ids>()) << shown(text);
    EXPECT_EQ(decode(*tokenizer, each["hf_reference"]), text);
  }
}

TEST(TokenizerGolden, SentencePiecePartsAsTheirFile) {
  const Json file = Json::parse(read(kData / "tokenizer_vectors" / "codestral_mamba.json"));
  TokenizerParts parts = parts_of(file["tokenizer"]);
  parts.kind = TokenizerParts::Kind::sentencepiece;
  for (std::size_t id = 0; id < parts.pieces.size(); ++id) {
    parts.scores.push_back(-static_cast<float>(id));
  }
  parts.unknown = 0;
  parts.bos = 1;
  parts.add_bos = true;
  auto tokenizer = Tokenizer::from_parts(std::move(parts));
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.message();
  EXPECT_EQ(tokenizer->bos(), 1);
  const Json& variant = file["variants"][0];
  ASSERT_TRUE(variant["set"].empty());
  for (const Json& each : variant["cases"]) check_case(*tokenizer, each);
}

}  // namespace
}  // namespace krait
