#include <array>
#include <fstream>
#include <iterator>
#include <unordered_map>

#include "runtime/core/try.h"
#include "runtime/text/added_tokens.h"
#include "runtime/text/tokenizer_spec.h"
#include "runtime/text/unicode.h"
#include <krait/tokenizer.h>

namespace krait {

struct Tokenizer::Impl {
  /// An added token, and the text that stands for it in decoded text: its normal form, if that is
  /// what is looked for.
  struct Added {
    AddedToken token;
    std::string text;
  };

  static Result<Tokenizer> create(TokenizerSpec spec);

  Status add_tokens();
  Status check_specials() const;
  Status encode(std::string_view text, EncodeOptions options, std::vector<std::int32_t>& ids) const;
  const std::string* decoded(std::int32_t id, DecodeOptions options) const;
  std::optional<std::int32_t> first_special(std::span<const std::string_view> names) const;

  TokenizerSpec spec;
  Vocabulary vocabulary;
  std::optional<Bpe> bpe;  // refers to vocabulary
  std::unordered_map<std::int32_t, Added> added;
  std::unordered_map<std::string_view, std::int32_t> added_ids;  // views of added
  AddedTokenSet in_text{{}};
  AddedTokenSet in_normal_text{{}};
  std::int32_t size = 0;
};

Result<Tokenizer> Tokenizer::Impl::create(TokenizerSpec spec) {
  const auto impl = std::make_shared<Impl>();
  KRAIT_ASSIGN(impl->vocabulary, Vocabulary::create(std::move(spec.vocabulary)));
  KRAIT_ASSIGN(impl->bpe, Bpe::create(impl->vocabulary, spec.merges, spec.bpe));
  KRAIT_TRY(check_decoder(spec.decoder));
  spec.merges.clear();
  spec.merges.shrink_to_fit();
  impl->spec = std::move(spec);
  impl->size = impl->vocabulary.size();
  KRAIT_TRY(impl->add_tokens());
  KRAIT_TRY(impl->check_specials());
  return Tokenizer(std::shared_ptr<const Impl>(impl));
}

Status Tokenizer::Impl::add_tokens() {
  std::vector<AddedTokenSet::Entry> plain, normal;
  for (const AddedToken& token : spec.added) {
    const auto shown = excerpt(token.content);
    if (token.id < 0 || token.id >= Vocabulary::kMaxSize) {
      return corrupt("[tokenizer] added token ", shown, " has id ", token.id, ": expected 0 to ",
                     Vocabulary::kMaxSize - 1);
    }
    if (find_invalid_utf8(token.content) != token.content.size()) {
      return corrupt("[tokenizer] added token ", shown, " is not UTF-8");
    }
    if (token.content.empty()) continue;
    const std::string* piece = vocabulary.piece(token.id);
    if (piece != nullptr && *piece != token.content) {
      return corrupt("[tokenizer] added token ", shown, " has id ", token.id,
                     ", which the vocabulary gives to ", excerpt(*piece));
    }
    if (const auto id = vocabulary.find(token.content); id && *id != token.id) {
      return corrupt("[tokenizer] added token ", shown, " has id ", token.id,
                     " and, in the vocabulary, id ", *id);
    }
    Added entry{token, token.content};
    if (token.normalized) {
      KRAIT_ASSIGN(entry.text, normalize(spec.normalizer, token.content));
    }
    (token.normalized ? normal : plain).push_back({entry.text, token});
    const auto [place, is_new] = added.emplace(token.id, std::move(entry));
    if (!is_new || !added_ids.emplace(place->second.token.content, token.id).second) {
      return corrupt("[tokenizer] added token ", shown, " (id ", token.id,
                     ") has the id or the content of another");
    }
    size = std::max(size, token.id + 1);
  }
  spec.added.clear();
  in_text = AddedTokenSet(std::move(plain));
  in_normal_text = AddedTokenSet(std::move(normal));
  return {};
}

Status Tokenizer::Impl::check_specials() const {
  for (const auto* ids : {&spec.before, &spec.after}) {
    for (const std::int32_t id : *ids) {
      if (vocabulary.piece(id) == nullptr && !added.contains(id)) {
        return corrupt("[tokenizer] the post-processor adds id ", id, ", which names no token");
      }
    }
  }
  return {};
}

Status Tokenizer::Impl::encode(std::string_view text, EncodeOptions options,
                               std::vector<std::int32_t>& ids) const {
  constexpr std::size_t kLongest = std::size_t{1} << 30;  // symbols of a word are counted in int32
  if (text.size() > kLongest) {
    return invalid("[tokenizer] text of ", text.size(), " bytes: expected at most ", kLongest,
                   "; encode it in parts");
  }
  if (const std::size_t bad = find_invalid_utf8(text); bad != text.size()) {
    return invalid("[tokenizer] text: byte ", bad, " (", excerpt(text.substr(bad, 1)),
                   ") is not UTF-8; convert the text first");
  }

  BpeEncoder encoder(*bpe);
  PreTokenizer pre_tokenizer(spec.pre_tokenizer);
  const PreTokenizer::Sink encode_word = [&](std::string_view word) -> Status {
    if (word.size() > kLongest) return invalid("[tokenizer] a word has more than 1 GiB");
    encoder.encode(word, ids);
    return {};
  };
  if (options.add_special) ids.insert(ids.end(), spec.before.begin(), spec.before.end());
  KRAIT_TRY(in_text.cut(
      text, options.parse_special, [&](std::string_view part, const AddedToken* token) -> Status {
        if (token != nullptr) {
          ids.push_back(token->id);
          return {};
        }
        const bool part_at_start = part.data() == text.data();
        KRAIT_ASSIGN(const std::string normal, normalize(spec.normalizer, std::string(part)));
        return in_normal_text.cut(normal, options.parse_special,
                                  [&](std::string_view piece, const AddedToken* found) -> Status {
                                    if (found != nullptr) {
                                      ids.push_back(found->id);
                                      return {};
                                    }
                                    const bool at_start =
                                        part_at_start && piece.data() == normal.data();
                                    return pre_tokenizer.run(piece, at_start, encode_word);
                                  });
      }));
  if (options.add_special) ids.insert(ids.end(), spec.after.begin(), spec.after.end());
  return {};
}

/// What an id hands to the decoder; null: nothing.
const std::string* Tokenizer::Impl::decoded(std::int32_t id, DecodeOptions options) const {
  const auto found = added.find(id);
  if (found == added.end()) return vocabulary.piece(id);
  return found->second.token.special && options.skip_special ? nullptr : &found->second.text;
}

std::optional<std::int32_t> Tokenizer::Impl::first_special(
    std::span<const std::string_view> names) const {
  for (const std::string_view name : names) {
    const auto found = added_ids.find(name);
    if (found != added_ids.end() && added.at(found->second).token.special) return found->second;
  }
  return std::nullopt;
}

Result<Tokenizer> Tokenizer::from_json(std::string_view json) {
  return guarded([&]() -> Result<Tokenizer> {
    KRAIT_ASSIGN(TokenizerSpec spec, read_tokenizer_json(json));
    return Impl::create(std::move(spec));
  });
}

Result<Tokenizer> Tokenizer::from_parts(TokenizerParts parts) {
  return guarded([&]() -> Result<Tokenizer> {
    KRAIT_ASSIGN(TokenizerSpec spec, read_tokenizer_parts(std::move(parts)));
    return Impl::create(std::move(spec));
  });
}

Result<Tokenizer> Tokenizer::load(const std::filesystem::path& path) {
  return guarded([&]() -> Result<Tokenizer> {
    std::error_code error;
    const bool is_folder = std::filesystem::is_directory(path, error);
    const std::filesystem::path file = is_folder ? path / "tokenizer.json" : path;
    constexpr std::uintmax_t kLargest = std::uintmax_t{1} << 28;
    const std::uintmax_t size = std::filesystem::file_size(file, error);
    if (error) return not_found("[tokenizer] ", file.string(), ": ", error.message());
    if (size > kLargest) {
      return unsupported("[tokenizer] ", file.string(), ": ", size, " bytes: expected at most ",
                         kLargest);
    }
    std::ifstream in(file, std::ios::binary);
    std::string json(static_cast<std::size_t>(size), '\0');
    in.read(json.data(), static_cast<std::streamsize>(json.size()));
    if (!in) return Status(Code::io, cat("[tokenizer] cannot read ", file.string()));
    auto tokenizer = from_json(json);
    if (tokenizer.ok()) return tokenizer;
    return Status(tokenizer.status().code(), cat(file.string(), ": ", tokenizer.message()));
  });
}

Result<std::vector<std::int32_t>> Tokenizer::encode(std::string_view text,
                                                    EncodeOptions options) const {
  return guarded([&]() -> Result<std::vector<std::int32_t>> {
    std::vector<std::int32_t> ids;
    KRAIT_TRY(impl_->encode(text, options, ids));
    return ids;
  });
}

Result<std::string> Tokenizer::decode(std::span<const std::int32_t> ids,
                                      DecodeOptions options) const {
  return guarded([&]() -> Result<std::string> {
    std::string text;
    DecodeChain chain(impl_->spec.decoder, &text);
    for (const std::int32_t id : ids) {
      if (const std::string* piece = impl_->decoded(id, options)) KRAIT_TRY(chain.push(*piece));
    }
    KRAIT_TRY(chain.flush());
    return text;
  });
}

std::int32_t Tokenizer::vocab_size() const {
  return impl_->size;
}

std::optional<std::string_view> Tokenizer::piece(std::int32_t id) const {
  if (const auto found = impl_->added.find(id); found != impl_->added.end()) {
    return found->second.token.content;
  }
  const std::string* piece = impl_->vocabulary.piece(id);
  return piece == nullptr ? std::nullopt : std::optional<std::string_view>(*piece);
}

std::optional<std::int32_t> Tokenizer::find(std::string_view piece) const {
  const auto found = impl_->added_ids.find(piece);
  return found != impl_->added_ids.end() ? found->second : impl_->vocabulary.find(piece);
}

bool Tokenizer::is_special(std::int32_t id) const {
  const auto found = impl_->added.find(id);
  return found != impl_->added.end() && found->second.token.special;
}

std::optional<std::int32_t> Tokenizer::bos() const {
  constexpr std::array<std::string_view, 5> kNames = {"<s>", "<|begin_of_text|>", "<bos>",
                                                      "<|startoftext|>", "<|endoftext|>"};
  return impl_->spec.bos ? impl_->spec.bos : impl_->first_special(kNames);
}

std::optional<std::int32_t> Tokenizer::eos() const {
  constexpr std::array<std::string_view, 5> kNames = {"<|endoftext|>", "</s>", "<|end_of_text|>",
                                                      "<eos>", "<|im_end|>"};
  return impl_->spec.eos ? impl_->spec.eos : impl_->first_special(kNames);
}

struct StreamDecoder::Impl {
  Impl(std::shared_ptr<const Tokenizer::Impl> from, DecodeOptions with)
      : tokenizer(std::move(from)), options(with), chain(tokenizer->spec.decoder, &text) {}

  std::shared_ptr<const Tokenizer::Impl> tokenizer;
  DecodeOptions options;
  std::string text;  // what chain has handed on
  DecodeChain chain;
};

StreamDecoder::StreamDecoder(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
StreamDecoder::StreamDecoder(StreamDecoder&&) noexcept = default;
StreamDecoder& StreamDecoder::operator=(StreamDecoder&&) noexcept = default;
StreamDecoder::~StreamDecoder() = default;

Result<StreamDecoder> Tokenizer::stream(DecodeOptions options) const {
  return guarded([&]() -> Result<StreamDecoder> {
    return StreamDecoder(std::make_unique<StreamDecoder::Impl>(impl_, options));
  });
}

Result<std::string> StreamDecoder::push(std::int32_t id) {
  return guarded([&]() -> Result<std::string> {
    impl_->text.clear();
    if (const std::string* piece = impl_->tokenizer->decoded(id, impl_->options)) {
      KRAIT_TRY(impl_->chain.push(*piece));
    }
    return impl_->text;
  });
}

Result<std::string> StreamDecoder::flush() {
  return guarded([&]() -> Result<std::string> {
    impl_->text.clear();
    KRAIT_TRY(impl_->chain.flush());
    return impl_->text;
  });
}

}  // namespace krait
