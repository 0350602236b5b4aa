#include "runtime/model/gguf_tokenizer.h"

#include <algorithm>
#include <array>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "runtime/core/json.h"
#include "runtime/core/try.h"
#include "runtime/text/pre_tokenizer.h"

namespace krait {
namespace {

constexpr std::string_view kJsonKey = "tokenizer.huggingface.json";

/// tokenizer.ggml.token_type of a piece.
enum TokenType {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6
};

/// How text is cut into words, by tokenizer.ggml.pre: expressions, applied in order. Of entries
/// that say the same, the first is written.
struct PreTokenizerName {
  std::string_view name;
  std::array<std::string_view, 4> splits;
  bool ignore_merges = false;
};
constexpr std::string_view kPunctuation = R"([\p{P}\$\+<=>\^~\|`]+)";
constexpr std::string_view kDigits = R"(\p{N}+)";
constexpr std::string_view kThreeDigits = "[0-9][0-9][0-9]";
constexpr std::string_view kLlama3Words =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|)"
    R"(\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kQwen2Words =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|)"
    R"(\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr PreTokenizerName kPreTokenizers[] = {
    {"gpt-2", {kGpt2Words}},
    {"olmo", {kGpt2Words}},
    {"mpt", {kGpt2Words}},
    {"phi-2", {kGpt2Words}},
    {"jais", {kGpt2Words}},
    // FalconMamba. Falcon's tokenizer.json cuts out rows of digits, too.
    {"falcon", {kPunctuation, kGpt2Words, kDigits, kThreeDigits}},
    {"default", {kPunctuation, kGpt2Words, kDigits, kThreeDigits}},
    {"dbrx", {kLlama3Words}},
    {"smaug-bpe", {kLlama3Words}},
    {"llama-bpe", {kLlama3Words}, true},
    {"llama3", {kLlama3Words}, true},
    {"llama-v3", {kLlama3Words}, true},
    {"falcon3", {kLlama3Words}, true},
    {"falcon-h1", {kLlama3Words}, true},
    {"qwen2", {kQwen2Words}},
    {"starcoder", {R"(\p{N})", kGpt2Words}},
    {"refact", {R"(\p{N})", kGpt2Words}},
    {"command-r", {R"(\p{N})", kGpt2Words}},
    {"smollm", {R"(\p{N})", kGpt2Words}},
};

std::vector<std::string> splits_of(const PreTokenizerName& entry) {
  std::vector<std::string> splits;
  for (const std::string_view split : entry.splits) {
    if (!split.empty()) splits.emplace_back(split);
  }
  return splits;
}

// ---- Reading ------------------------------------------------------------------------------------

/// Metadata by key, without "tokenizer.ggml.", with messages.
class Keys {
 public:
  explicit Keys(const GgufFile& file) : file_(file) {}

  const GgufValue* find(std::string_view key) const {
    return file_.value(cat("tokenizer.ggml.", key));
  }
  /// The value through `read`, a member of GgufValue; nothing if there is no such key.
  template <class Value>
  Result<std::optional<Value>> get(std::string_view key, std::string_view expected,
                                   std::optional<Value> (GgufValue::*read)() const) const {
    const GgufValue* value = find(key);
    if (!value) return std::optional<Value>();
    auto result = (value->*read)();
    if (!result) return corrupt("tokenizer.ggml.", key, ": expected ", expected);
    return result;
  }
  Result<std::optional<std::int32_t>> id(std::string_view key) const {
    KRAIT_ASSIGN(const auto number, get(key, "a token's id", &GgufValue::whole_number));
    if (!number) return std::optional<std::int32_t>();
    if (*number < 0 || *number > std::numeric_limits<std::int32_t>::max())
      return corrupt("tokenizer.ggml.", key, ": expected a token's id, got ", *number);
    return std::optional(static_cast<std::int32_t>(*number));
  }
  /// An array that must be as long as there are tokens, if it is there.
  template <class Value>
  Result<std::vector<Value>> list(std::string_view key, std::size_t tokens,
                                  std::optional<std::vector<Value>> (GgufValue::*read)()
                                      const) const {
    KRAIT_ASSIGN(auto values, get(key, "an array of numbers", read));
    if (!values) return std::vector<Value>();
    if (values->size() != tokens)
      return corrupt("tokenizer.ggml.", key, ": expected one for each of ", tokens, " tokens, got ",
                     values->size());
    return std::move(*values);
  }

 private:
  const GgufFile& file_;
};

Status read_pre_tokenizer(const Keys& keys, TokenizerParts& parts) {
  KRAIT_ASSIGN(const auto pre, keys.get("pre", "a text", &GgufValue::text));
  // Files from before there was such a key: of Mamba models, all have GPT-NeoX's tokenizer.
  const std::string_view name = pre.value_or("gpt-2");
  const auto* entry = std::ranges::find(kPreTokenizers, name, &PreTokenizerName::name);
  if (entry == std::end(kPreTokenizers)) {
    std::string known;
    for (const PreTokenizerName& each : kPreTokenizers)
      known += (known.empty() ? "" : ", ") + std::string(each.name);
    return unsupported("tokenizer.ggml.pre is ", shown(name), "; Krait knows ", known);
  }
  parts.splits = splits_of(*entry);
  parts.ignore_merges = entry->ignore_merges;
  return {};
}

Result<TokenizerParts> read_parts(const Keys& keys) {
  TokenizerParts parts;
  KRAIT_ASSIGN(const auto model, keys.get("model", "a text", &GgufValue::text));
  if (!model)
    return not_found("no tokenizer: the file has neither tokenizer.ggml.model nor ", kJsonKey);
  const bool is_sentencepiece = *model == "llama";
  if (!is_sentencepiece && *model != "gpt2")
    return unsupported("tokenizer.ggml.model is ", shown(*model), "; Krait knows gpt2 and llama");

  KRAIT_ASSIGN(const auto pieces, keys.get("tokens", "an array of texts", &GgufValue::texts));
  if (!pieces) return corrupt("tokenizer.ggml.tokens is missing");
  parts.pieces.assign(pieces->begin(), pieces->end());
  const std::size_t count = parts.pieces.size();
  KRAIT_ASSIGN(parts.bos, keys.id("bos_token_id"));
  KRAIT_ASSIGN(parts.eos, keys.id("eos_token_id"));
  KRAIT_ASSIGN(parts.unknown, keys.id("unknown_token_id"));
  if (is_sentencepiece) {
    parts.kind = TokenizerParts::Kind::sentencepiece;
    KRAIT_ASSIGN(const auto scores, keys.list("scores", count, &GgufValue::numbers));
    for (const double score : scores) parts.scores.push_back(static_cast<float>(score));
    KRAIT_ASSIGN(const auto prefix,
                 keys.get("add_space_prefix", "true or false", &GgufValue::boolean));
    parts.add_space_prefix = prefix.value_or(true);
    // As sentencepiece numbers them unless told otherwise.
    if (!parts.unknown && count > 0) parts.unknown = 0;
    if (!parts.bos && count > 1) parts.bos = 1;
    if (!parts.eos && count > 2) parts.eos = 2;
  } else {
    KRAIT_ASSIGN(const auto merges, keys.get("merges", "an array of texts", &GgufValue::texts));
    if (!merges) return corrupt("tokenizer.ggml.merges is missing");
    parts.merges.assign(merges->begin(), merges->end());
    KRAIT_TRY(read_pre_tokenizer(keys, parts));
  }

  KRAIT_ASSIGN(const auto types, keys.list("token_type", count, &GgufValue::whole_numbers));
  for (std::size_t id = 0; id < count; ++id) {
    const auto is = [&](std::optional<std::int32_t> other) {
      return other && static_cast<std::size_t>(*other) == id;
    };
    const bool special = types.empty() ? is(parts.bos) || is(parts.eos)
                                       : types[id] == kControl || types[id] == kUnknown;
    if (!special && (types.empty() || types[id] != kUserDefined)) continue;
    parts.added.push_back(
        {.id = static_cast<std::int32_t>(id), .content = parts.pieces[id], .special = special});
  }
  KRAIT_ASSIGN(const auto add_bos, keys.get("add_bos_token", "true or false", &GgufValue::boolean));
  KRAIT_ASSIGN(const auto add_eos, keys.get("add_eos_token", "true or false", &GgufValue::boolean));
  parts.add_bos = add_bos.value_or(is_sentencepiece) && parts.bos;
  parts.add_eos = add_eos.value_or(false) && parts.eos;
  return parts;
}

// ---- Writing ------------------------------------------------------------------------------------

const Json& member(const Json& object, const char* key) {
  static const Json kNothing;
  const auto found = object.is_object() ? object.find(key) : object.end();
  return found == object.end() ? kNothing : *found;
}
std::string text_of(const Json& object, const char* key) {
  const Json& text = member(object, key);
  return text.is_string() ? text.get<std::string>() : std::string();
}
bool flag_of(const Json& object, const char* key, bool otherwise) {
  const Json& flag = member(object, key);
  return flag.is_boolean() ? flag.get<bool>() : otherwise;
}

/// The pre-tokenizer as a list of expressions, if it spells bytes and is nothing else.
std::optional<std::vector<std::string>> splits_of(const Json& pre_tokenizer) {
  const Json& steps = text_of(pre_tokenizer, "type") == "Sequence"
                          ? member(pre_tokenizer, "pretokenizers")
                          : Json::array({pre_tokenizer});
  std::vector<std::string> splits;
  bool spells_bytes = false;
  if (!steps.is_array()) return std::nullopt;
  for (const Json& step : steps) {
    const std::string type = text_of(step, "type");
    if (type == "ByteLevel" && !spells_bytes && !flag_of(step, "add_prefix_space", true)) {
      spells_bytes = true;
      if (flag_of(step, "use_regex", true)) splits.emplace_back(kGpt2Words);
    } else if (type == "Split" && text_of(step, "behavior") == "Isolated" &&
               !flag_of(step, "invert", false)) {
      splits.push_back(text_of(member(step, "pattern"), "Regex"));
    } else if (type == "Punctuation" && text_of(step, "behavior") == "Contiguous") {
      splits.emplace_back(kPunctuation);
    } else if (type == "Digits") {
      splits.emplace_back(flag_of(step, "individual_digits", false) ? R"(\p{N})" : kDigits);
    } else {
      return std::nullopt;
    }
  }
  if (!spells_bytes) return std::nullopt;
  return splits;
}

/// The value of tokenizer.ggml.pre, if there is one that means this tokenizer. The arrays have no
/// place for a normaliser; NFC is let go, since it changes little and every converter does so.
std::optional<std::string_view> name_of_pre_tokenizer(const Json& tokenizer) {
  const Json& model = member(tokenizer, "model");
  if (text_of(model, "type") != "BPE" || flag_of(model, "byte_fallback", false))
    return std::nullopt;
  if (const Json& normalizer = member(tokenizer, "normalizer");
      !normalizer.is_null() && text_of(normalizer, "type") != "NFC")
    return std::nullopt;
  const auto splits = splits_of(member(tokenizer, "pre_tokenizer"));
  if (!splits) return std::nullopt;
  for (const PreTokenizerName& entry : kPreTokenizers) {
    if (splits_of(entry) == *splits &&
        entry.ignore_merges == flag_of(model, "ignore_merges", false))
      return entry.name;
  }
  return std::nullopt;
}

/// "left right" of both spellings that tokenizer.json knows.
std::optional<std::string> merge_text(const Json& merge) {
  if (merge.is_string()) return merge.get<std::string>();
  if (!merge.is_array() || merge.size() != 2 || !merge[0].is_string() || !merge[1].is_string())
    return std::nullopt;
  return merge[0].get<std::string>() + " " + merge[1].get<std::string>();
}

void add_id(std::string_view key, std::optional<std::int64_t> id, GgufMetadata& metadata) {
  if (id) metadata.add(key, static_cast<std::uint32_t>(*id));
}

}  // namespace

Result<Tokenizer> gguf_tokenizer(const GgufFile& file) {
  return guarded([&]() -> Result<Tokenizer> {
    if (const GgufValue* json = file.value(kJsonKey)) {
      const auto text = json->text();
      if (!text) return corrupt(kJsonKey, ": expected a text");
      return Tokenizer::from_json(*text);
    }
    KRAIT_ASSIGN(TokenizerParts parts, read_parts(Keys(file)));
    Result<Tokenizer> tokenizer = Tokenizer::from_parts(std::move(parts));
    // What is wrong with the parts is wrong with the file.
    if (!tokenizer.ok() && tokenizer.status().code() == Code::invalid_argument)
      return Status(Code::corrupt, tokenizer.message());
    return tokenizer;
  });
}

Result<bool> add_gguf_tokenizer(std::string_view tokenizer_json, const GgufVocabulary& vocabulary,
                                GgufMetadata& metadata) {
  return guarded([&]() -> Result<bool> {
    // The tokenizer itself has checked the JSON: what follows may rely on its form.
    KRAIT_ASSIGN(const Tokenizer tokenizer, Tokenizer::from_json(tokenizer_json));
    KRAIT_ASSIGN(const Json json, parse_json(tokenizer_json, "tokenizer.json"));
    if (tokenizer.vocab_size() > vocabulary.size)
      return invalid("the tokenizer has ", tokenizer.vocab_size(), " tokens, the model only ",
                     vocabulary.size);
    metadata.add(kJsonKey, tokenizer_json);
    const auto pre = name_of_pre_tokenizer(json);
    if (!pre) return false;

    std::vector<std::string> pieces;
    std::vector<std::int32_t> types;
    for (std::int32_t id = 0; id < vocabulary.size; ++id) {
      const auto piece = tokenizer.piece(id);
      pieces.push_back(piece ? std::string(*piece) : cat("[PAD", id, "]"));
      types.push_back(piece ? kNormal : kUnused);
    }
    for (const Json& token : member(json, "added_tokens")) {
      const auto id = whole_number(member(token, "id"));
      if (id && *id >= 0 && *id < vocabulary.size)
        types[static_cast<std::size_t>(*id)] =
            flag_of(token, "special", false) ? kControl : kUserDefined;
    }
    std::vector<std::string> merges;
    for (const Json& merge : member(member(json, "model"), "merges")) {
      auto text = merge_text(merge);
      if (!text) return corrupt("[tokenizer] merge ", merges.size(), ": expected two pieces");
      merges.push_back(std::move(*text));
    }
    KRAIT_ASSIGN(const auto around, tokenizer.encode("", {.add_special = true}));
    metadata.add("tokenizer.ggml.model", "gpt2");
    metadata.add("tokenizer.ggml.pre", *pre);
    metadata.add("tokenizer.ggml.tokens", pieces);
    metadata.add("tokenizer.ggml.token_type", types);
    metadata.add("tokenizer.ggml.merges", merges);
    add_id("tokenizer.ggml.bos_token_id", vocabulary.bos, metadata);
    add_id("tokenizer.ggml.eos_token_id", vocabulary.eos, metadata);
    const bool adds_bos = !around.empty() && vocabulary.bos == around.front();
    const std::size_t rest = around.size() - (adds_bos ? 1 : 0);
    metadata.add("tokenizer.ggml.add_bos_token", adds_bos);
    metadata.add("tokenizer.ggml.add_eos_token", rest > 0 && vocabulary.eos == around.back());
    return true;
  });
}

}  // namespace krait
