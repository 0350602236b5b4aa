// A tokenizer.json that may be anything, and any text through it. An input is a file, a zero byte
// and a text; what has no zero byte is a text for the fixed tokenizers below.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/text/byte_alphabet.h"
#include "runtime/text/unicode.h"
#include "tests/fuzz/require.h"
#include <krait/sampler.h>
#include <krait/tokenizer.h>

namespace krait {
namespace {

using test::require;

/// GPT-2's alphabet and a few merges, which keeps every byte.
Tokenizer byte_level() {
  TokenizerParts parts;
  const auto spelled = [](std::string_view text) {
    std::string piece;
    for (const char c : text) append_char(piece, kByteToChar[static_cast<unsigned char>(c)]);
    return piece;
  };
  for (int byte = 0; byte < 256; ++byte) {
    parts.pieces.push_back(spelled(std::string(1, static_cast<char>(byte))));
  }
  for (const auto& [left, right] :
       {std::pair{"a", "a"}, {"aa", "aa"}, {" ", "a"}, {"\n", "\n"}, {"\xE6", "\x97"}}) {
    parts.pieces.push_back(spelled(std::string(left) + right));
    parts.merges.push_back(spelled(left) + " " + spelled(right));
  }
  parts.added = {{.id = 300, .content = "<|end|>", .special = true},
                 {.id = 301, .content = "  ", .normalized = true}};
  return *Tokenizer::from_parts(std::move(parts));
}

/// Llama's kind: everything is kept but where U+2581 stood for itself.
Tokenizer sentencepiece() {
  TokenizerParts parts;
  parts.kind = TokenizerParts::Kind::sentencepiece;
  for (int byte = 0; byte < 256; ++byte) {
    constexpr std::string_view kHex = "0123456789ABCDEF";
    parts.pieces.push_back({'<', '0', 'x', kHex[static_cast<std::size_t>(byte >> 4)],
                            kHex[static_cast<std::size_t>(byte & 15)], '>'});
  }
  for (const char* piece : {"\xE2\x96\x81", "a", "b", "ab", "▁a", "\xE6\x97\xA5"}) {
    parts.pieces.push_back(piece);
  }
  for (std::size_t id = 0; id < parts.pieces.size(); ++id) {
    parts.scores.push_back(-static_cast<float>(id % 7));
  }
  return *Tokenizer::from_parts(std::move(parts));
}

/// Encodes and decodes; ids are in range, decoded text is UTF-8, and a stream gives the same.
/// Returns the decoded text.
std::string use(const Tokenizer& tokenizer, std::string_view text, EncodeOptions options) {
  const auto ids = tokenizer.encode(text, options);
  if (!ids.ok()) {
    require(!ids.message().empty());
    return {};
  }
  for (const std::int32_t id : *ids) require(tokenizer.piece(id).has_value());
  const auto decoded = tokenizer.decode(*ids);
  if (!decoded.ok()) return {};
  require(find_invalid_utf8(*decoded) == decoded->size());
  auto stream = tokenizer.stream();
  require(stream.ok());
  std::string streamed;
  for (const std::int32_t id : *ids) {
    const auto part = stream->push(id);
    require(part.ok() && find_invalid_utf8(*part) == part->size());
    streamed += *part;
  }
  streamed += *stream->flush();
  require(streamed == *decoded);
  return *decoded;
}

/// Ids that no text gives, through decode.
void use_ids(const Tokenizer& tokenizer, std::string_view bytes) {
  std::vector<std::int32_t> ids;
  for (const char c : bytes) ids.push_back(static_cast<unsigned char>(c) * 3 - 2);
  const auto text = tokenizer.decode(ids, {.skip_special = true});
  if (text.ok()) require(find_invalid_utf8(*text) == text->size());
}

void use_fixed(std::string_view text) {
  static const Tokenizer bytes = byte_level();
  static const Tokenizer pieces = sentencepiece();
  const bool is_utf8 = find_invalid_utf8(text) == text.size();
  require(bytes.encode(text).ok() == is_utf8);
  use_ids(bytes, text);
  use_ids(pieces, text);
  if (!is_utf8) return;
  require(use(bytes, text, {}) == text);
  require(use(bytes, text, {.parse_special = false}) == text);
  const std::string decoded = use(pieces, text, {});
  if (text.find("\xE2\x96\x81") == std::string_view::npos) require(decoded == text);

  // Stop strings: what is printed is the text up to one, whatever the parts.
  auto matcher = StopMatcher::create({"ab", "aab", "b\n", "\xE6\x97\xA5"});
  require(matcher.ok());
  std::string printed;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t begin = at;
    next_char(text, at);
    printed += *matcher->push(text.substr(begin, at - begin));
  }
  printed += *matcher->flush();
  require(text.starts_with(printed));
  require(matcher->stopped() == (printed.size() < text.size()));
}

}  // namespace
}  // namespace krait

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const std::size_t zero = input.find('\0');
  if (zero == std::string_view::npos) {
    krait::use_fixed(input);
    return 0;
  }
  const auto tokenizer = krait::Tokenizer::from_json(input.substr(0, zero));
  if (!tokenizer.ok()) {
    krait::require(!tokenizer.message().empty());
    return 0;
  }
  const std::string_view text = input.substr(zero + 1);
  krait::use(*tokenizer, text, {.add_special = true});
  krait::use(*tokenizer, text, {.parse_special = false});
  krait::use_ids(*tokenizer, text);
  return 0;
}
