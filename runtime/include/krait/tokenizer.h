// Text to token ids and back: byte-pair encoding as Hugging Face's tokenizer.json describes it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <krait/export.h>
#include <krait/status.h>

namespace krait {

/// A token that is found in the text itself, before the text is cut into words.
struct AddedToken {
  std::int32_t id = -1;
  std::string content = {};
  bool special = false;      ///< a control token, such as the end of a text; decoding can skip it
  bool normalized = false;   ///< looked for in the normalised text, not in the text as given
  bool lstrip = false;       ///< takes the white space before it with it
  bool rstrip = false;       ///< takes the white space after it with it
  bool single_word = false;  ///< only where no letter or digit touches it
};

/// A tokenizer in parts, for formats other than tokenizer.json (GGUF holds these arrays).
struct TokenizerParts {
  enum class Kind {
    byte_level,     ///< GPT-2: pieces spell bytes in GPT-2's alphabet; needs merges
    sentencepiece,  ///< Llama: pieces are text with U+2581 for a blank; needs scores
  };
  Kind kind = Kind::byte_level;
  std::vector<std::string> pieces = {};  ///< by id
  std::vector<std::string> merges = {};  ///< byte_level: "left right", the first merge goes first
  std::vector<float> scores = {};  ///< sentencepiece: one per piece, the highest merge goes first
  std::vector<AddedToken> added = {};  ///< their ids may be among the pieces or behind them
  /// byte_level: regular expressions, applied in order, whose matches become words of their own.
  /// None: GPT-2's.
  std::vector<std::string> splits = {};
  bool ignore_merges = false;    ///< a word that is a piece is that piece
  bool add_space_prefix = true;  ///< sentencepiece: text begins with a blank that is not shown
  std::optional<std::int32_t> unknown = {}, bos = {}, eos = {};
  bool add_bos = false;  ///< whether EncodeOptions::add_special puts bos in front
  bool add_eos = false;  ///< whether EncodeOptions::add_special puts eos at the end
};

struct EncodeOptions {
  /// Put the tokens around the text that the tokenizer's file asks for (such as <s> in front).
  bool add_special = false;
  /// Recognise special tokens in the text. Turn it off for text from strangers, which then can
  /// hold "<|endoftext|>" but not end anything.
  bool parse_special = true;
};

struct DecodeOptions {
  bool skip_special = false;  ///< leave special tokens out
};

class StreamDecoder;

/// Immutable, cheap to copy, and safe to use from several threads at once.
///
/// Supported: BPE models; normalizers NFC, NFD, NFKC, NFKD, Lowercase, Prepend, Replace; the
/// pre-tokenizers ByteLevel, Split, Digits, Punctuation, Metaspace, Whitespace, WhitespaceSplit,
/// CharDelimiterSplit; the decoders ByteLevel, ByteFallback, Fuse, Metaspace, Replace, Strip; the
/// post-processors ByteLevel and TemplateProcessing; sequences of each. All else is refused by
/// name (unsupported). Truncation and padding are ignored.
class KRAIT_API Tokenizer {
 public:
  /// From the text of a tokenizer.json.
  static Result<Tokenizer> from_json(std::string_view json);
  /// From a tokenizer.json, or from a folder that holds one.
  static Result<Tokenizer> load(const std::filesystem::path& path);
  static Result<Tokenizer> from_parts(TokenizerParts parts);

  /// The ids of `text`, which must be UTF-8 (invalid_argument names the first byte that is not)
  /// and at most 1 GiB. No text gives no ids.
  Result<std::vector<std::int32_t>> encode(std::string_view text, EncodeOptions options = {}) const;

  /// The text of `ids`; always UTF-8. Ids that name no token (the padding rows of an embedding,
  /// negative ones) give nothing; bytes that form no character give U+FFFD.
  Result<std::string> decode(std::span<const std::int32_t> ids, DecodeOptions options = {}) const;

  /// Decodes ids that arrive one at a time.
  Result<StreamDecoder> stream(DecodeOptions options = {}) const;

  /// The largest id + 1. Not every id below it need name a token, and a model's embedding can
  /// have more rows.
  std::int32_t vocab_size() const;

  /// The piece of an id as the vocabulary spells it (see also decode); nothing if it names none.
  std::optional<std::string_view> piece(std::int32_t id) const;
  /// The id of a piece or added token by its content.
  std::optional<std::int32_t> find(std::string_view piece) const;
  bool is_special(std::int32_t id) const;

  /// The tokens that begin and end a text: those of the parts, else the special token that has one
  /// of the usual names, such as <s> or <|endoftext|>. A model's configuration knows better.
  std::optional<std::int32_t> bos() const;
  std::optional<std::int32_t> eos() const;

 private:
  friend class StreamDecoder;
  struct Impl;
  explicit Tokenizer(std::shared_ptr<const Impl> impl) : impl_(std::move(impl)) {}

  std::shared_ptr<const Impl> impl_;
};

/// Text of ids that arrive one at a time. All that push and flush return, put together, is what
/// decode returns for the same ids; each part by itself is UTF-8, with no character cut in two.
class KRAIT_API StreamDecoder {
 public:
  StreamDecoder(StreamDecoder&&) noexcept;
  StreamDecoder& operator=(StreamDecoder&&) noexcept;
  ~StreamDecoder();

  /// The text that is certain now. May be empty, when characters take several tokens.
  Result<std::string> push(std::int32_t id);
  /// The rest, at the end of the ids. The decoder then begins anew.
  Result<std::string> flush();

 private:
  friend class Tokenizer;
  struct Impl;
  explicit StreamDecoder(std::unique_ptr<Impl> impl);

  std::unique_ptr<Impl> impl_;
};

}  // namespace krait
