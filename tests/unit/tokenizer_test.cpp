#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <gtest/gtest.h>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "runtime/text/byte_alphabet.h"
#include "runtime/text/unicode.h"
#include "tests/helpers/files.h"
#include <krait/tokenizer.h>

namespace krait {
namespace {

using Json = nlohmann::json;
using Ids = std::vector<std::int32_t>;

/// A tokenizer.json with these pieces and merges; the parts that a test is about come on top.
Json file_of(const Json& vocabulary, const Json& merges, const Json& parts = Json::object()) {
  Json file = {{"added_tokens", Json::array()},
               {"model", {{"type", "BPE"}, {"vocab", vocabulary}, {"merges", merges}}}};
  file.merge_patch(parts);
  return file;
}

Tokenizer must(Result<Tokenizer> tokenizer) {
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.message();
  return tokenizer.ok() ? *tokenizer : *Tokenizer::from_parts({});
}

Tokenizer make(const Json& file) {
  return must(Tokenizer::from_json(file.dump()));
}

/// A tokenizer whose vocabulary is GPT-2's alphabet: the id of a byte is that byte.
Json byte_file(const Json& parts = Json::object()) {
  Json vocabulary = Json::object();
  for (std::size_t byte = 0; byte < 256; ++byte) {
    std::string piece;
    append_char(piece, kByteToChar[byte]);
    vocabulary[piece] = byte;
  }
  Json file = file_of(vocabulary, Json::array(), {{"decoder", {{"type", "ByteLevel"}}}});
  file["pre_tokenizer"] = {{"type", "ByteLevel"}, {"add_prefix_space", false}};
  file.update(parts);
  return file;
}

Ids encode(const Tokenizer& tokenizer, std::string_view text, EncodeOptions options = {}) {
  auto ids = tokenizer.encode(text, options);
  EXPECT_TRUE(ids.ok()) << ids.message();
  return ids.ok() ? *ids : Ids{-1};
}

std::string decode(const Tokenizer& tokenizer, const Ids& ids, DecodeOptions options = {}) {
  auto text = tokenizer.decode(ids, options);
  EXPECT_TRUE(text.ok()) << text.message();
  return text.ok() ? *text : "";
}

Ids bytes_of(std::string_view text) {
  Ids ids;
  for (const char c : text) ids.push_back(static_cast<unsigned char>(c));
  return ids;
}

void expect_refused(const Result<Tokenizer>& result, Code code, std::string_view part) {
  ASSERT_FALSE(result.ok()) << "expected: " << part;
  EXPECT_EQ(result.status().code(), code) << result.message();
  EXPECT_NE(result.message().find(part), std::string::npos)
      << "expected: " << part << "\ngot: " << result.message();
  EXPECT_LT(result.message().size(), 400u);
}

TEST(Tokenizer, RefusesFilesThatContradictThemselves) {
  const auto refuse = [](const Json& file, std::string_view part) {
    expect_refused(Tokenizer::from_json(file.dump()), Code::corrupt, part);
  };
  expect_refused(Tokenizer::from_json(""), Code::corrupt, "tokenizer.json");
  expect_refused(Tokenizer::from_json("{"), Code::corrupt, "tokenizer.json");
  refuse(Json::array(), "expected an object");
  refuse(Json::object(), "model: expected an object");
  refuse({{"model", {{"type", "BPE"}}}}, "vocab: expected an object");
  refuse({{"model", {{"vocab", {{"a", 0}}}}}}, "merges: expected an array");
  refuse(file_of({{"a", -1}}, Json::array()), "has id -1");
  refuse(file_of({{"a", 1.5}}, Json::array()), "has id 1.5");
  refuse(file_of({{"a", "0"}}, Json::array()), "has id \"0\"");
  refuse(file_of({{"a", std::uint64_t{1} << 63}}, Json::array()), "9223372036854775808");
  refuse(file_of({{"a", 1 << 22}}, Json::array()), "expected 0 to 4194303");
  refuse(file_of({{"a", 0}, {"b", 0}}, Json::array()), "id 0 belongs to both \"a\" and \"b\"");
  refuse(file_of({{"a", 0}}, {"a"}), "merge 0: expected two pieces");
  refuse(file_of({{"a", 0}}, {"a  a"}), "merge 0: expected two pieces");
  refuse(file_of({{"a", 0}}, {{"a", "b", "c"}}), "merge 0: expected two pieces");
  refuse(file_of({{"a", 0}}, {3}), "merge 0: expected two pieces");
  refuse(file_of({{"a", 0}}, {"a a"}), "\"aa\" is not in the vocabulary");
  refuse(file_of({{"a", 0}}, {"b a"}), "\"b\" is not in the vocabulary");
  const Json a = {{"a", 0}};
  const auto with = [&](const Json& parts) { return file_of(a, Json::array(), parts); };
  refuse(with({{"model", {{"unk_token", "?"}}}}), "unk_token \"?\" is not in the vocabulary");
  refuse(with({{"model", {{"fuse_unk", 1}}}}), "fuse_unk: expected true or false, got 1");
  const auto added = [&](std::int64_t id, const std::string& content) {
    return Json{{"id", id}, {"content", content}};
  };
  const auto with_added = [&](const std::vector<Json>& tokens) {
    return with({{"added_tokens", tokens}});
  };
  refuse(with_added({added(-1, "x")}), "id: expected an integer from 0");
  refuse(with_added({added(1LL << 40, "x")}), "id: expected an integer from 0");
  refuse(with_added({added(1 << 30, "x")}), "expected 0 to 4194303");
  refuse(with_added({added(0, "x")}), "which the vocabulary gives to \"a\"");
  refuse(with_added({added(3, "a")}), "in the vocabulary, id 0");
  refuse(with_added({added(1, "x"), added(1, "y")}), "the id or the content of another");
  refuse(with_added({added(1, "x"), added(2, "x")}), "the id or the content of another");
  refuse(with_added({7}), "added_tokens: expected objects");
  refuse(with({{"added_tokens", "x"}}), "added_tokens: expected an array");
  refuse(with({{"decoder", {{"content", "x"}}}}), "type: expected a string, got nothing");
  refuse(with({{"decoder", 3}}), "expected a step with a type, got 3");
  refuse(with({{"pre_tokenizer", {{"type", "Sequence"}}}}), "pretokenizers: expected an array");
  refuse(with({{"pre_tokenizer", {{"type", "Split"}, {"pattern", "x"}}}}), "String or Regex");
  refuse(with({{"pre_tokenizer", {{"type", "Metaspace"}, {"replacement", "ab"}}}}),
         "replacement: expected one character, got \"ab\"");
  const Json strip = {{"type", "Strip"}, {"content", " "}, {"start", -1}, {"stop", 0}};
  refuse(with({{"decoder", strip}}), "start: expected an integer from 0");
  const Json part = {{"SpecialToken", {{"id", "<s>"}}}};
  Json post = {{"type", "TemplateProcessing"}, {"single", {part, {{"Sequence", {{"id", "A"}}}}}}};
  refuse(with({{"post_processor", post}}), "do not hold \"<s>\"");
  post["special_tokens"] = {{"<s>", {{"ids", {5}}}}};
  refuse(with({{"post_processor", post}}), "adds id 5, which names no token");
}

TEST(Tokenizer, RefusesByNameWhatItDoesNotSupport) {
  const auto refuse = [](const Json& parts, std::string_view part) {
    const Json file = file_of({{"a", 0}}, Json::array(), parts);
    expect_refused(Tokenizer::from_json(file.dump()), Code::unsupported, part);
  };
  refuse({{"model", {{"type", "Unigram"}}}}, "model \"Unigram\"");
  refuse({{"model", {{"dropout", 0.1}}}}, "dropout 0.1");
  refuse({{"model", {{"end_of_word_suffix", "</w>"}}}}, "end_of_word_suffix \"</w>\"");
  refuse({{"normalizer", {{"type", "BertNormalizer"}}}}, "normalizer \"BertNormalizer\"");
  refuse({{"pre_tokenizer", {{"type", "UnicodeScripts"}}}}, "pre-tokenizer \"UnicodeScripts\"");
  refuse({{"decoder", {{"type", "WordPiece"}}}}, "decoder \"WordPiece\"");
  refuse({{"post_processor", {{"type", "BertProcessing"}}}}, "post-processor \"BertProcessing\"");
  const Json bytes = {{"type", "ByteLevel"}};
  refuse({{"pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", {bytes, bytes}}}}},
         "ByteLevel behind ByteLevel");
  refuse({{"decoder", {{"type", "Sequence"}, {"decoders", {bytes, bytes}}}}}, "can follow");
  const Json many(std::size_t{40}, {{"type", "NFC"}});
  refuse({{"normalizer", {{"type", "Sequence"}, {"normalizers", many}}}}, "at most 32");
  const auto split = [](const std::string& expression, const char* kind = "Regex") {
    return Json{{"pre_tokenizer",
                 {{"type", "Split"}, {"behavior", "Isolated"}, {"pattern", {{kind, expression}}}}}};
  };
  refuse(split("", "String"), "an empty string");
  refuse(split("a("), "missing closing parenthesis");
  refuse(split("\\Ca"), "the escape \\C");
  refuse(split("[a-c&&b]"), "an intersection of classes");
  refuse(split("[a[bc]]"), "a bracket inside brackets");
  refuse(split("(*LIMIT_MATCH=9)a"), "this kind of group");
  refuse(split("(?x)a b"), "this option");
  refuse(split("a\\"), "a backslash at the end");
  refuse(split("{1,2}"), "a repetition of nothing");
  refuse(split(std::string(70000, 'a')), "expected at most 65536");
}

TEST(Tokenizer, RefusesTextThatIsNotUtf8) {
  const Tokenizer tokenizer = make(byte_file());
  for (const std::string& bad :
       {std::string("\x80"), std::string("\xC3"), std::string("\xC0\xAF"), std::string("\xE2\x82"),
        std::string("\xED\xA0\x80"), std::string("\xF4\x90\x80\x80"), std::string("\xFF"),
        std::string("\xE0\x80\x80")}) {
    const auto ids = tokenizer.encode("ok\xC3\xA9" + bad + "ok");
    ASSERT_FALSE(ids.ok()) << excerpt(bad);
    EXPECT_EQ(ids.status().code(), Code::invalid_argument);
    EXPECT_NE(ids.message().find("byte 4 "), std::string::npos) << ids.message();
  }
  const std::string_view nul("a\0b", 3);
  EXPECT_EQ(encode(tokenizer, nul), bytes_of(nul));
}

TEST(Tokenizer, VocabulariesMayHaveHoles) {
  const Tokenizer tokenizer = make(file_of({{"a", 3}, {"b", 7}, {"ab", 90}, {"", 5}}, {"a b"}));
  EXPECT_EQ(tokenizer.vocab_size(), 91);
  EXPECT_EQ(encode(tokenizer, "abba"), (Ids{90, 7, 3}));
  EXPECT_EQ(decode(tokenizer, {90, 4, -1, 91, 1 << 30, 3}), "ab a");
  EXPECT_EQ(tokenizer.piece(90), "ab");
  EXPECT_EQ(tokenizer.piece(5), "");
  EXPECT_FALSE(tokenizer.piece(4).has_value());
  EXPECT_FALSE(tokenizer.piece(-1).has_value());
  EXPECT_FALSE(tokenizer.piece(std::numeric_limits<std::int32_t>::max()).has_value());
  EXPECT_EQ(tokenizer.find("b"), 7);
  EXPECT_FALSE(tokenizer.find("c").has_value());
  // Characters that are not in the vocabulary vanish when there is no piece for them.
  EXPECT_EQ(encode(tokenizer, "a?b"), (Ids{90}));
  const Tokenizer empty = make(file_of(Json::object(), Json::array()));
  EXPECT_EQ(empty.vocab_size(), 0);
  EXPECT_EQ(encode(empty, "text"), Ids{});
}

TEST(Tokenizer, EmptyTextHasNoTokensButThoseAskedFor) {
  Json file = byte_file({{"normalizer", {{"type", "Prepend"}, {"prepend", "_"}}}});
  file["added_tokens"] = {{{"id", 256}, {"content", "<s>"}, {"special", true}},
                          {{"id", 257}, {"content", "</s>"}, {"special", true}}};
  EXPECT_EQ(encode(make(file), ""), Ids{});
  EXPECT_EQ(encode(make(file), "", {.add_special = true}), Ids{});
  EXPECT_EQ(decode(make(file), {}), "");
  const auto token = [](const char* name) { return Json{{"SpecialToken", {{"id", name}}}}; };
  file["post_processor"] = {
      {"type", "TemplateProcessing"},
      {"single", {token("<s>"), {{"Sequence", {{"id", "A"}}}}, token("</s>")}},
      {"special_tokens", {{"<s>", {{"ids", {256}}}}, {"</s>", {{"ids", {257}}}}}}};
  const Tokenizer tokenizer = make(file);
  EXPECT_EQ(encode(tokenizer, ""), Ids{});
  EXPECT_EQ(encode(tokenizer, "", {.add_special = true}), (Ids{256, 257}));
  EXPECT_EQ(encode(tokenizer, "a", {.add_special = true}), (Ids{256, '_', 'a', 257}));
  EXPECT_EQ(tokenizer.bos(), 256);
  EXPECT_EQ(tokenizer.eos(), 257);
  EXPECT_TRUE(tokenizer.is_special(256));
  EXPECT_FALSE(tokenizer.is_special('a'));
  EXPECT_FALSE(tokenizer.is_special(-5));
}

TEST(Tokenizer, SpecialTokensInTextAreAChoice) {
  Json file = byte_file();
  file["added_tokens"] = {{{"id", 256}, {"content", "<|end|>"}, {"special", true}},
                          {{"id", 257}, {"content", "[tool]"}, {"special", false}}};
  const Tokenizer tokenizer = make(file);
  EXPECT_EQ(encode(tokenizer, "a<|end|>[tool]"), (Ids{'a', 256, 257}));
  Ids plain = bytes_of("a<|end|>");
  plain.push_back(257);
  EXPECT_EQ(encode(tokenizer, "a<|end|>[tool]", {.parse_special = false}), plain);
  EXPECT_EQ(decode(tokenizer, {'a', 256, 257}), "a<|end|>[tool]");
  EXPECT_EQ(decode(tokenizer, {'a', 256, 257}, {.skip_special = true}), "a[tool]");
  EXPECT_EQ(tokenizer.find("<|end|>"), 256);
  EXPECT_EQ(tokenizer.piece(256), "<|end|>");
}

/// Byte-pair encoding by its definition: merge the leftmost pair of the lowest rank, again and
/// again. Quadratic.
std::vector<std::string> merge_slowly(
    std::vector<std::string> symbols,
    const std::map<std::pair<std::string, std::string>, int>& rank) {
  for (;;) {
    int best = std::numeric_limits<int>::max();
    std::size_t at = 0;
    for (std::size_t i = 0; i + 1 < symbols.size(); ++i) {
      const auto found = rank.find({symbols[i], symbols[i + 1]});
      if (found != rank.end() && found->second < best) {
        best = found->second;
        at = i;
      }
    }
    if (best == std::numeric_limits<int>::max()) return symbols;
    symbols[at] += symbols[at + 1];
    symbols.erase(symbols.begin() + static_cast<std::ptrdiff_t>(at) + 1);
  }
}

TEST(Tokenizer, MergesAsTheDefinitionOfBytePairEncodingSays) {
  std::mt19937 random(20240611);
  for (int round = 0; round < 40; ++round) {
    // Random merges over a small alphabet, so that they compete.
    std::vector<std::string> pieces = {"a", "b", "c", "\xC3\xA9"};
    std::map<std::pair<std::string, std::string>, int> rank;
    Json merges = Json::array();
    while (merges.size() < 25) {
      const std::string left = pieces[random() % pieces.size()];
      const std::string right = pieces[random() % pieces.size()];
      if (left.size() + right.size() > 12 || rank.contains({left, right})) continue;
      rank[{left, right}] = static_cast<int>(merges.size());
      merges.push_back({left, right});
      if (std::find(pieces.begin(), pieces.end(), left + right) == pieces.end()) {
        pieces.push_back(left + right);
      }
    }
    Json vocabulary = Json::object();
    for (std::size_t i = 0; i < pieces.size(); ++i) vocabulary[pieces[i]] = i;
    const Tokenizer tokenizer = make(file_of(vocabulary, merges));
    for (int word = 0; word < 50; ++word) {
      std::vector<std::string> symbols;
      std::string text;
      for (std::size_t n = random() % 120; n > 0; --n) {
        symbols.push_back(pieces[random() % 4]);
        text += symbols.back();
      }
      Ids expected;
      for (const std::string& piece : merge_slowly(symbols, rank)) {
        expected.push_back(vocabulary[piece].get<std::int32_t>());
      }
      ASSERT_EQ(encode(tokenizer, text), expected) << text << "\n" << merges;
    }
  }
}

TEST(Tokenizer, AMillionCharactersWithoutASpace) {
  Json vocabulary = {{"a", 0}};
  Json merges = Json::array();
  std::string piece = "a";
  for (int level = 1; level <= 10; ++level) {
    merges.push_back({piece, piece});
    piece += piece;
    vocabulary[piece] = level;
  }
  const Tokenizer tokenizer = make(file_of(vocabulary, merges));
  const std::string text(1'000'000, 'a');
  // 1000000 = 976 * 1024 + 512 + 64
  Ids expected(976, 10);
  expected.insert(expected.end(), {9, 6});
  EXPECT_EQ(encode(tokenizer, text), expected);

  // The same length through every stage: marks in the wrong order, blanks, added tokens.
  Json file = byte_file({{"normalizer", {{"type", "NFC"}}}});
  file["added_tokens"] = {
      {{"id", 256}, {"content", "\n"}, {"rstrip", true}, {"lstrip", true}, {"normalized", false}},
      {{"id", 257}, {"content", "  "}, {"rstrip", true}, {"normalized", true}}};
  const Tokenizer bytes = make(file);
  std::string marks = "a";
  for (int i = 0; i < 250'000; ++i) marks += "\xCC\x81\xCC\xA3";  // U+0301 U+0323
  std::string sorted = "\xE1\xBA\xA1";  // U+1EA1 is a with U+0323, the mark that sorts first
  for (int i = 1; i < 250'000; ++i) sorted += "\xCC\xA3";
  for (int i = 0; i < 250'000; ++i) sorted += "\xCC\x81";
  EXPECT_TRUE(decode(bytes, encode(bytes, marks)) == sorted);
  EXPECT_EQ(encode(bytes, std::string(1'000'000, '\n')).size(), 1u);
  EXPECT_EQ(encode(bytes, std::string(1'000'000, ' ')).size(), 500'000u);
  EXPECT_EQ(encode(bytes, std::string(1'000'000, 'x')).size(), 1'000'000u);
}

TEST(Tokenizer, ExplosiveExpressionsEndInAnError) {
  const Json split = {
      {"type", "Split"}, {"behavior", "Isolated"}, {"pattern", {{"Regex", "(a+)+$"}}}};
  const Tokenizer tokenizer = make(byte_file({{"pre_tokenizer", split}}));
  const auto ids = tokenizer.encode(std::string(60, 'a') + "b");
  ASSERT_FALSE(ids.ok());
  EXPECT_EQ(ids.status().code(), Code::unsupported);
  EXPECT_NE(ids.message().find("gave up"), std::string::npos) << ids.message();
}

TEST(Tokenizer, TextThatReplaceInflatesEndsInAnError) {
  const Json grow = {{"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", "aaaaaaaa"}};
  const Json normalizer = {{"type", "Sequence"}, {"normalizers", Json(std::size_t{30}, grow)}};
  const auto ids = make(byte_file({{"normalizer", normalizer}})).encode("a");
  ASSERT_FALSE(ids.ok());
  EXPECT_EQ(ids.status().code(), Code::unsupported);
  const Json decoder = {{"type", "Sequence"}, {"decoders", Json(std::size_t{16}, grow)}};
  const auto text = make(byte_file({{"decoder", decoder}})).decode(bytes_of("a"));
  ASSERT_FALSE(text.ok());
  EXPECT_EQ(text.status().code(), Code::unsupported);
}

TEST(Tokenizer, BrokenBytesBecomeReplacementCharacters) {
  const Tokenizer tokenizer = make(byte_file());
  const std::string r = "\xEF\xBF\xBD";
  // One for each maximal beginning of a character, as Unicode recommends.
  EXPECT_EQ(decode(tokenizer, bytes_of("\x80")), r);
  EXPECT_EQ(decode(tokenizer, bytes_of("\xE6\x97")), r);
  EXPECT_EQ(decode(tokenizer, bytes_of("\xE6\x97x")), r + "x");
  EXPECT_EQ(decode(tokenizer, bytes_of("\xE6\xE6\x97\xA5")), r + "\xE6\x97\xA5");
  EXPECT_EQ(decode(tokenizer, bytes_of("\xF0\x80\x80\x41")), r + r + r + "A");
  EXPECT_EQ(decode(tokenizer, bytes_of("\xED\xA0\x80")), r + r + r);
  EXPECT_EQ(decode(tokenizer, bytes_of("\xF0\x9F\x98\x80\xFF")), "\xF0\x9F\x98\x80" + r);
}

TEST(Tokenizer, ByteFallbackKeepsTheGoodCharactersOfABrokenRow) {
  Json vocabulary = {{"x", 256}};
  for (int byte = 0; byte < 256; ++byte) {
    const char* hex = "0123456789ABCDEF";
    vocabulary[std::string("<0x") + hex[byte >> 4] + hex[byte & 15] + ">"] = byte;
  }
  const Tokenizer tokenizer = make(file_of(
      vocabulary, Json::array(),
      {{"model", {{"byte_fallback", true}}},
       {"decoder",
        {{"type", "Sequence"}, {"decoders", {{{"type", "ByteFallback"}}, {{"type", "Fuse"}}}}}}}));
  const std::string r = "\xEF\xBF\xBD";
  EXPECT_EQ(encode(tokenizer, "x\xE5\x8F\xABx"), (Ids{256, 0xE5, 0x8F, 0xAB, 256}));
  EXPECT_EQ(decode(tokenizer, {0xE5, 0x8F, 0xAB, 256}), "\xE5\x8F\xABx");
  EXPECT_EQ(decode(tokenizer, {0xE5, 0x8F, 256}), r + r + "x");
  // Hugging Face gives up all of such a row, but only after its end: see ByteFallback.
  EXPECT_EQ(decode(tokenizer, {0xE5, 0x8F, 0xAB, 0xFF, 'A'}), "\xE5\x8F\xAB" + r + "A");
}

TEST(StreamDecoder, NeverCutsACharacter) {
  const Tokenizer tokenizer = make(byte_file());
  auto stream = tokenizer.stream();
  ASSERT_TRUE(stream.ok());
  const std::string text = "a\xC3\xA9\xE6\x97\xA5\xF0\x9F\x98\x80z";
  std::vector<std::string> parts;
  for (const std::int32_t id : bytes_of(text)) parts.push_back(*stream->push(id));
  EXPECT_EQ(parts, (std::vector<std::string>{"a", "", "\xC3\xA9", "", "", "\xE6\x97\xA5", "", "",
                                             "", "\xF0\x9F\x98\x80", "z"}));
  EXPECT_EQ(*stream->flush(), "");
  EXPECT_EQ(*stream->push(0xE6), "");
  EXPECT_EQ(*stream->push(-1), "");
  EXPECT_EQ(*stream->flush(), "\xEF\xBF\xBD");
  // After flush it begins anew.
  EXPECT_EQ(*stream->push('b'), "b");
  // It outlives the tokenizer it came from.
  auto orphan = make(byte_file()).stream();
  EXPECT_EQ(*orphan->push('c'), "c");
}

TEST(StreamDecoder, PartsMakeWhatDecodeMakes) {
  const auto step = [](const char* type) { return Json{{"type", type}}; };
  const auto replace = [](const char* from, const char* to) {
    return Json{{"type", "Replace"}, {"pattern", {{"String", from}}}, {"content", to}};
  };
  const auto strip = [](const char* what, int start, int stop) {
    return Json{{"type", "Strip"}, {"content", what}, {"start", start}, {"stop", stop}};
  };
  const auto sequence = [](const Json& steps) {
    return Json{{"type", "Sequence"}, {"decoders", steps}};
  };
  const Json metaspace = {{"type", "Metaspace"}, {"replacement", "\xE2\x96\x81"}};
  const std::vector<Json> decoders = {
      Json(),
      step("ByteLevel"),
      step("ByteFallback"),
      metaspace,
      sequence(
          {replace("\xE2\x96\x81", " "), step("ByteFallback"), step("Fuse"), strip(" ", 1, 0)}),
      sequence({step("Fuse"), replace("abab", "-"), strip("a", 2, 3)}),
      sequence({step("ByteLevel"),
                replace("\xC3\xA9"
                        "a",
                        "\xC3\xA9"),
                strip("b", 0, 2)}),
      sequence({metaspace, replace("aa", ""), step("Fuse"), replace("ba", "ab")})};
  const std::vector<std::string> pieces = {
      "a",      "b",      "ab",     "aba",      "aa",       "\xE2\x96\x81", "▁a", " ",
      "<0xC3>", "<0xA9>", "<0x61>", "\xC3\x83", "\xC2\xA9", "\xC3\xA9",     "",   "\xE6\x97\xA5"};
  Json vocabulary = Json::object();
  for (std::size_t i = 0; i < pieces.size(); ++i) vocabulary[pieces[i]] = i;

  std::mt19937 random(7);
  for (const Json& decoder : decoders) {
    Json file = file_of(vocabulary, Json::array());
    file["decoder"] = decoder;
    const Tokenizer tokenizer = make(file);
    auto stream = tokenizer.stream();
    ASSERT_TRUE(stream.ok());
    for (int round = 0; round < 400; ++round) {
      Ids ids;
      for (std::size_t n = random() % 12; n > 0; --n) {
        ids.push_back(static_cast<std::int32_t>(random() % (pieces.size() + 1)));
      }
      std::string text;
      for (const std::int32_t id : ids) {
        const std::string part = *stream->push(id);
        ASSERT_EQ(find_invalid_utf8(part), part.size()) << decoder << excerpt(part);
        text += part;
      }
      text += *stream->flush();
      ASSERT_EQ(text, decode(tokenizer, ids)) << decoder;
    }
  }
}

TEST(TokenizerParts, AreChecked) {
  const auto refuse = [](TokenizerParts parts, std::string_view part) {
    expect_refused(Tokenizer::from_parts(std::move(parts)), Code::invalid_argument, part);
  };
  using Kind = TokenizerParts::Kind;
  EXPECT_TRUE(Tokenizer::from_parts({}).ok());
  refuse({.kind = Kind::sentencepiece, .pieces = {"a"}},
         "expected one for each of 1 pieces, got 0");
  refuse({.kind = Kind::sentencepiece, .pieces = {"a"}, .scores = {std::nanf("")}}, "is NaN");
  refuse({.pieces = {"a"}, .unknown = 1}, "unknown: expected an id from 0 to 0, got 1");
  refuse({.pieces = {"a"}, .bos = -1}, "bos: expected an id");
  refuse({.pieces = {"a"}, .eos = 9}, "eos: expected an id");
  refuse({.pieces = {"a"}, .add_bos = true}, "need bos and eos");
  const auto corrupt = [](TokenizerParts parts, std::string_view part) {
    expect_refused(Tokenizer::from_parts(std::move(parts)), Code::corrupt, part);
  };
  corrupt({.pieces = {"a", "a"}}, "has two ids, 0 and 1");
  corrupt({.pieces = {"a", "\xFF"}}, "is not UTF-8");
  corrupt({.pieces = {"a"}, .merges = {"aa"}}, "merge 0");
  corrupt({.pieces = {"a"}, .merges = {"a a"}}, "not in the vocabulary");
  corrupt({.pieces = {"a"}, .added = {{.id = 1, .content = "\xC3"}}}, "is not UTF-8");
  corrupt({.pieces = {"a"}, .splits = {"\xC3"}}, "is not UTF-8");
  expect_refused(Tokenizer::from_parts({.pieces = {"a"}, .splits = {"("}}), Code::unsupported, "(");
  expect_refused(
      Tokenizer::from_parts(
          {.kind = Kind::sentencepiece, .pieces = {std::string(2000, 'a')}, .scores = {0}}),
      Code::unsupported, "2000 bytes");
}

TEST(TokenizerParts, SentencePieceMergesTheHighestScoreFirst) {
  TokenizerParts parts;
  parts.kind = TokenizerParts::Kind::sentencepiece;
  parts.pieces = {"<unk>", "<s>", "a", "b", "c", "ab", "bc", "\xE2\x96\x81", "▁ab"};
  parts.scores = {0, 0, -9, -9, -9, -2, -1, -9, -3};
  parts.added = {{.id = 0, .content = "<unk>", .special = true},
                 {.id = 1, .content = "<s>", .special = true}};
  parts.unknown = 0;
  parts.bos = 1;
  parts.add_bos = true;
  const Tokenizer tokenizer = must(Tokenizer::from_parts(parts));
  EXPECT_EQ(encode(tokenizer, "abc"), (Ids{7, 2, 6}));
  EXPECT_EQ(encode(tokenizer, "ab", {.add_special = true}), (Ids{1, 8}));
  EXPECT_EQ(encode(tokenizer, "<s>ab"), (Ids{1, 8}));
  EXPECT_EQ(encode(tokenizer, "a??b"), (Ids{7, 2, 0, 3}));  // unknown characters in a row are one
  EXPECT_EQ(decode(tokenizer, {8, 7, 5}), "ab ab");
  parts.add_space_prefix = false;
  const Tokenizer bare = must(Tokenizer::from_parts(parts));
  EXPECT_EQ(encode(bare, "ab ab"), (Ids{5, 8}));
  EXPECT_EQ(decode(bare, {8, 5}), " abab");
}

TEST(TokenizerParts, SplitsReplaceGpt2sWords) {
  TokenizerParts parts;
  parts.pieces = {"1", "2", "12", "a"};
  parts.merges = {"1 2"};
  EXPECT_EQ(encode(must(Tokenizer::from_parts(parts)), "12a"), (Ids{2, 3}));
  parts.splits = {"[0-9]"};
  EXPECT_EQ(encode(must(Tokenizer::from_parts(parts)), "12a"), (Ids{0, 1, 3}));
}

TEST(Tokenizer, LoadNamesTheFile) {
  const auto missing = Tokenizer::load("/nonexistent/tokenizer.json");
  ASSERT_FALSE(missing.ok());
  EXPECT_EQ(missing.status().code(), Code::not_found);
  EXPECT_NE(missing.message().find("/nonexistent/tokenizer.json"), std::string::npos);
  const std::filesystem::path root = test::source_dir();
  const auto other = Tokenizer::load(root / "assets" / "classics-mamba" / "config.json");
  expect_refused(other, Code::corrupt, "config.json: [tokenizer] model");
  EXPECT_TRUE(Tokenizer::load(root / "assets" / "classics-mamba").ok());
}

TEST(Tokenizer, ServesSeveralThreadsAtOnce) {
  const std::filesystem::path root = test::source_dir();
  const Tokenizer tokenizer = must(Tokenizer::load(root / "assets" / "classics-mamba"));
  const std::string text =
      "It was a dark and stormy night; the captain's \xE2\x80\x9Cship\xE2\x80\x9D ";
  const Ids expected = encode(tokenizer, text);
  std::vector<int> right(4, 0);
  std::vector<std::thread> threads;
  threads.reserve(right.size());
  for (int& count : right) {
    threads.emplace_back([&text, &expected, &count, own = tokenizer] {
      for (int i = 0; i < 100; ++i) {
        const auto ids = own.encode(text);
        if (!ids.ok() || *ids != expected) continue;
        const auto decoded = own.decode(*ids);
        if (decoded.ok() && *decoded == text) ++count;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(right, std::vector<int>(4, 100));
}

}  // namespace
}  // namespace krait
