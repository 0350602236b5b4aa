#include "runtime/model/gguf_tokenizer.h"

#include <cstring>
#include <nlohmann/json.hpp>

#include "runtime/core/json.h"
#include "runtime/model/checkpoint.h"
#include "runtime/model/mapped_file.h"
#include "tests/helpers/expect.h"
#include "tests/helpers/files.h"
#include "tests/helpers/gguf_bytes.h"

namespace krait {
namespace {

using test::gguf_array;
using test::gguf_texts;
using test::GgufBytes;
using test::is_error;
using test::is_ok;
using test::le;
using test::must;
using Ids = std::vector<std::int32_t>;

Result<Tokenizer> tokenizer_of(const GgufBytes& bytes) {
  const std::string memory = bytes.str();
  return gguf_tokenizer(must(GgufFile::parse(std::as_bytes(std::span(memory)), "m")));
}

std::string numbers(std::initializer_list<std::int32_t> list) {
  std::string elements;
  for (const std::int32_t number : list) elements += le(number);
  return gguf_array(GgufType::i32, list.size(), elements);
}

/// GPT-2's model with five tokens: a, b, ab, <s> and one that users added.
GgufBytes tiny() {
  GgufBytes bytes;
  bytes.text("tokenizer.ggml.model", "gpt2").text("tokenizer.ggml.pre", "gpt-2");
  bytes.add("tokenizer.ggml.tokens", GgufType::array, gguf_texts({"a", "b", "ab", "<s>", "b!"}));
  bytes.add("tokenizer.ggml.token_type", GgufType::array, numbers({1, 1, 1, 3, 4}));
  bytes.add("tokenizer.ggml.merges", GgufType::array, gguf_texts({"a b"}));
  return bytes;
}

TEST(GgufTokenizer, Gpt2) {
  const Tokenizer tokenizer = must(tokenizer_of(tiny().number("tokenizer.ggml.bos_token_id", 3)));
  EXPECT_EQ(must(tokenizer.encode("abab<s>ab!")), (Ids{2, 2, 3, 0, 4}));
  EXPECT_EQ(must(tokenizer.encode("ab", {.add_special = true})), Ids{2});
  EXPECT_EQ(tokenizer.bos(), 3);
  EXPECT_EQ(tokenizer.eos(), std::nullopt);
  EXPECT_TRUE(tokenizer.is_special(3));
  EXPECT_FALSE(tokenizer.is_special(4));
  // What users added counts even where special tokens do not.
  EXPECT_EQ(must(tokenizer.encode("ab!", {.parse_special = false})), (Ids{0, 4}));
}

TEST(GgufTokenizer, TokensAround) {
  GgufBytes bytes = tiny();
  bytes.number("tokenizer.ggml.bos_token_id", 3).number("tokenizer.ggml.eos_token_id", 4);
  bytes.add("tokenizer.ggml.add_bos_token", GgufType::boolean, le(std::uint8_t{1}));
  bytes.add("tokenizer.ggml.add_eos_token", GgufType::boolean, le(std::uint8_t{1}));
  const Tokenizer tokenizer = must(tokenizer_of(bytes));
  EXPECT_EQ(must(tokenizer.encode("ab", {.add_special = true})), (Ids{3, 2, 4}));
  EXPECT_EQ(tokenizer.eos(), 4);
}

TEST(GgufTokenizer, WithoutTypesTheEndsAreSpecial) {
  GgufBytes bytes;
  bytes.text("tokenizer.ggml.model", "gpt2");
  bytes.add("tokenizer.ggml.tokens", GgufType::array, gguf_texts({"a", "<s>"}));
  bytes.add("tokenizer.ggml.merges", GgufType::array, gguf_texts({}));
  bytes.number("tokenizer.ggml.eos_token_id", 1);
  EXPECT_EQ(must(must(tokenizer_of(bytes)).encode("a<s>")), (Ids{0, 1}));
}

TEST(GgufTokenizer, RefusesContradictions) {
  const auto refused = [](const GgufBytes& bytes, Code code, std::string_view text) {
    EXPECT_TRUE(is_error(tokenizer_of(bytes), code, text));
  };
  refused(GgufBytes(), Code::not_found, "neither tokenizer.ggml.model nor");
  refused(GgufBytes().number("tokenizer.ggml.model", 1), Code::corrupt, "expected a text");
  refused(GgufBytes().text("tokenizer.ggml.model", "bert"), Code::unsupported, "gpt2 and llama");
  refused(GgufBytes().text("tokenizer.ggml.model", "gpt2"), Code::corrupt, "tokens is missing");
  refused(GgufBytes().text("tokenizer.ggml.model", "gpt2").number("tokenizer.ggml.tokens", 1),
          Code::corrupt, "expected an array of texts");
  GgufBytes bytes;
  bytes.text("tokenizer.ggml.model", "gpt2");
  bytes.add("tokenizer.ggml.tokens", GgufType::array, gguf_texts({"a", "b"}));
  refused(bytes, Code::corrupt, "merges is missing");
  bytes.add("tokenizer.ggml.merges", GgufType::array, gguf_texts({"a b"}));
  refused(bytes, Code::corrupt, "merge");  // makes ab, which is no token
  bytes = tiny();
  bytes.number("tokenizer.ggml.bos_token_id", 5);
  refused(bytes, Code::corrupt, "expected an id from 0 to 4");
  bytes = tiny();
  bytes.add("tokenizer.ggml.eos_token_id", GgufType::i32, le(-1));
  refused(bytes, Code::corrupt, "eos_token_id: expected a token's id");
  bytes = {};
  bytes.text("tokenizer.ggml.model", "llama");
  bytes.add("tokenizer.ggml.tokens", GgufType::array, gguf_texts({"a", "b"}));
  refused(bytes, Code::corrupt, "scores: expected one for each of 2");
  bytes.add("tokenizer.ggml.scores", GgufType::array, gguf_array(GgufType::f32, 1, le(1.0f)));
  refused(bytes, Code::corrupt, "scores: expected one for each of 2 tokens, got 1");
  bytes = {};
  bytes.text("tokenizer.ggml.model", "gpt2").text("tokenizer.ggml.pre", "unheard-of");
  bytes.add("tokenizer.ggml.tokens", GgufType::array, gguf_texts({"a"}));
  bytes.add("tokenizer.ggml.merges", GgufType::array, gguf_texts({}));
  refused(bytes, Code::unsupported, "pre is \"unheard-of\"; Krait knows gpt-2, olmo");
  refused(GgufBytes().number("tokenizer.huggingface.json", 1), Code::corrupt, "expected a text");
  refused(GgufBytes().text("tokenizer.huggingface.json", "{"), Code::corrupt, "tokenizer.json");
}

TEST(GgufTokenizer, ATokenizerBesideTheFileServesWhereItHasNone) {
  const test::TemporaryFolder folder;
  GgufBytes bytes;
  bytes.text("general.architecture", "mamba");
  test::write_file(folder / "m.gguf", bytes.str());
  const auto without = must(Checkpoint::open(folder / "m.gguf"));
  EXPECT_TRUE(is_error(without->tokenizer(), Code::not_found, "tokenizer.json"));
  std::filesystem::copy_file(test::assets() / "classics-mamba" / "tokenizer.json",
                             folder / "tokenizer.json");
  EXPECT_EQ(must(without->tokenizer()).vocab_size(), 4096);
  // Its own goes first, also if it is broken.
  bytes.text("tokenizer.ggml.model", "bert");
  test::write_file(folder / "own.gguf", bytes.str());
  EXPECT_TRUE(is_error(must(Checkpoint::open(folder / "own.gguf"))->tokenizer(), Code::unsupported,
                       "bert"));
}

// ---- There and back -----------------------------------------------------------------------------

/// The metadata that stand for a tokenizer.json; without the JSON itself unless wanted.
struct Written {
  Written(const std::string& json, GgufVocabulary vocabulary, bool keep_json) {
    const test::TemporaryFolder folder;
    GgufMetadata all, kept;
    expressed = must(add_gguf_tokenizer(json, vocabulary, all));
    EXPECT_TRUE(is_ok(write_gguf(folder / "all", all, {}, {})));
    const std::string memory = test::read_file(folder / "all");
    const GgufFile file = must(GgufFile::parse(std::as_bytes(std::span(memory)), "all"));
    for (const auto& [key, value] : file.metadata()) {
      if (keep_json || key != "tokenizer.huggingface.json") kept.add(key, value);
    }
    EXPECT_TRUE(is_ok(write_gguf(folder / "kept", kept, {}, {})));
    bytes = test::read_file(folder / "kept");
  }
  GgufFile file() const { return must(GgufFile::parse(std::as_bytes(std::span(bytes)), "kept")); }

  bool expressed;
  std::string bytes;
};

Json vectors(const std::string& name) {
  return Json::parse(test::read_file(test::source_dir() / "tests" / "golden" / "data" /
                                     "tokenizer_vectors" / (name + ".json")));
}

/// For every variant of a file that the arrays can express: the ids are those of its JSON without
/// the normaliser, which has no place in the arrays, and of Hugging Face's library if there is
/// none.
int check_vectors(const std::string& name, std::string_view pre) {
  int checked = 0;
  const Json file = vectors(name);
  for (const Json& variant : file["variants"]) {
    Json json = file["tokenizer"];
    json.update(variant["set"]);
    const Written written(json.dump(), {2000, {}, {}}, false);
    if (!written.expressed) continue;
    const GgufFile gguf = written.file();
    EXPECT_EQ(gguf.value("tokenizer.ggml.pre")->text(), pre);
    const Tokenizer tokenizer = must(gguf_tokenizer(gguf));
    EXPECT_EQ(tokenizer.vocab_size(), 2000);
    EXPECT_EQ(tokenizer.piece(1999), "[PAD1999]");
    const bool is_exact = json["normalizer"].is_null();
    json["normalizer"] = nullptr;
    const Tokenizer original = must(Tokenizer::from_json(json.dump()));
    for (const Json& each : variant["cases"]) {
      if (!each.contains("text")) continue;
      const std::string text = each["text"];
      const Ids ids = must(tokenizer.encode(text));
      EXPECT_EQ(ids, must(original.encode(text))) << each.dump();
      if (is_exact) {
        EXPECT_EQ(ids, each["ids"].get<Ids>()) << each.dump();
      }
      ++checked;
    }
  }
  return checked;
}

TEST(GgufTokenizer, ArraysMeanWhatTheJsonMeant) {
  EXPECT_GT(check_vectors("byte_level", "gpt-2"), 10);
  EXPECT_GT(check_vectors("falcon_mamba", "falcon"), 10);
}

TEST(GgufTokenizer, SentencePiece) {
  // Llama's merges as scores: the earlier, the higher. Pieces that no merge makes stay out.
  const Json file = vectors("codestral_mamba");
  const Json& model = file["tokenizer"]["model"];
  const std::size_t count = model["vocab"].size();
  std::vector<std::string> pieces(count);
  std::vector<float> scores(count, -1e6f);
  std::vector<std::int32_t> types(count, 1);
  for (const auto& [piece, id] : model["vocab"].items()) {
    pieces[id.get<std::size_t>()] = piece;
    if (piece.size() == 6 && piece.starts_with("<0x")) types[id.get<std::size_t>()] = 6;
  }
  float score = 0;
  for (const Json& merge : model["merges"]) {
    const std::string made = merge[0].get<std::string>() + merge[1].get<std::string>();
    scores.at(model["vocab"][made].get<std::size_t>()) = score--;
  }
  for (const Json& token : file["tokenizer"]["added_tokens"])
    types.at(token["id"].get<std::size_t>()) = token["content"] == "<unk>" ? 2 : 3;

  GgufMetadata metadata;
  metadata.add("tokenizer.ggml.model", "llama");
  metadata.add("tokenizer.ggml.tokens", pieces);
  metadata.add("tokenizer.ggml.token_type", types);
  metadata.add("tokenizer.ggml.scores",
               GgufValue{GgufType::array, GgufType::f32, count, std::as_bytes(std::span(scores))});
  const test::TemporaryFolder folder;
  ASSERT_TRUE(is_ok(write_gguf(folder / "m", metadata, {}, {})));
  const MappedFile mapped = must(MappedFile::open(folder / "m"));
  const Tokenizer tokenizer = must(gguf_tokenizer(must(GgufFile::parse(mapped.bytes(), "m"))));
  EXPECT_EQ(tokenizer.bos(), 1);
  EXPECT_EQ(tokenizer.eos(), 2);
  int checked = 0;
  for (const Json& each : file["variants"][0]["cases"]) {
    if (!each.contains("text") || each["text"].get<std::string>().empty()) continue;
    const std::string text = each["text"];
    EXPECT_EQ(must(tokenizer.encode(text)), each["ids"].get<Ids>()) << each.dump();
    EXPECT_EQ(must(tokenizer.encode(text, {.add_special = true})), each["special_ids"].get<Ids>());
    EXPECT_EQ(must(tokenizer.decode(each["ids"].get<Ids>())), each["decoded"].get<std::string>())
        << each.dump();
    ++checked;
  }
  EXPECT_GT(checked, 10);
}

TEST(GgufTokenizer, WhatTheArraysCannotExpressComesAsJson) {
  const std::string json = vectors("codestral_mamba")["tokenizer"].dump();
  const Written written(json, {1000, 1, 2}, true);
  EXPECT_FALSE(written.expressed);
  const GgufFile file = written.file();
  EXPECT_EQ(file.value("tokenizer.ggml.model"), nullptr);
  EXPECT_EQ(must(must(gguf_tokenizer(file)).encode("Hello, world!")),
            (Ids{326, 280, 546, 314, 265, 608, 399, 259}));
}

TEST(GgufTokenizer, NeoxKeepsItsNormaliserThroughTheJson) {
  const std::string json =
      test::read_file(test::source_dir() / "tests/golden/data/gpt-neox-20b.json");
  const Written written(json, {50280, 0, 0}, true);
  EXPECT_TRUE(written.expressed);
  const Tokenizer tokenizer = must(gguf_tokenizer(written.file()));
  const std::string decomposed = "re\xcc\x81sume\xcc\x81";
  EXPECT_EQ(must(tokenizer.encode(decomposed)), must(tokenizer.encode("r\xc3\xa9sum\xc3\xa9")));
  const Written arrays(json, {50280, 0, 0}, false);
  const GgufFile file = arrays.file();
  EXPECT_EQ(file.value("tokenizer.ggml.tokens")->texts()->size(), 50280u);
  const auto types = *file.value("tokenizer.ggml.token_type")->whole_numbers();
  EXPECT_EQ(types[0], 3);
  EXPECT_EQ(types[100], 1);
  EXPECT_EQ(types[50270], 4);
  EXPECT_EQ(types[50279], 5);
  EXPECT_EQ(must(must(gguf_tokenizer(file)).encode("def f(x):\n        return x")),
            must(tokenizer.encode("def f(x):\n        return x")));
}

TEST(GgufTokenizer, RefusesATokenizerOfAnotherModel) {
  const std::string json = vectors("byte_level")["tokenizer"].dump();
  GgufMetadata metadata;
  EXPECT_TRUE(is_error(add_gguf_tokenizer(json, {10, {}, {}}, metadata), Code::invalid_argument,
                       "the model only 10"));
  EXPECT_TRUE(is_error(add_gguf_tokenizer("{}", {10, {}, {}}, metadata), Code::corrupt, "model"));
}

}  // namespace
}  // namespace krait
