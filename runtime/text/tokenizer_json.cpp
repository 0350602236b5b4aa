// Reads Hugging Face's tokenizer.json: a list of named steps for each stage of the work.
//
// Where the result differs from what Hugging Face's library makes of the same file:
//  - ByteFallback keeps the good characters of a row of bytes that holds broken ones (decoder.cpp).
//  - Unknown characters keep their place among those that byte_fallback spells; there, they come
//    after them. It takes a vocabulary with some of <0x00> to <0xFF>, not all.
//  - prepend_scheme "first" means the beginning of the text; there, all that comes from its first
//    character, even in several pieces.
//  - An added token whose normal form is empty is not found; there, it cuts the text everywhere.
//  - Characters newer than the Unicode of the installed PCRE2 and utf8proc have no class.
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>

#include "runtime/core/json.h"
#include "runtime/core/try.h"
#include "runtime/text/tokenizer_spec.h"
#include "runtime/text/unicode.h"

namespace krait {
namespace {

/// `value` as a message shows it.
std::string shown(const Json& value) {
  if (value.is_string()) return excerpt(value.get_ref<const std::string&>());
  return value.is_number() || value.is_boolean() ? value.dump() : value.type_name();
}

/// A member of an object with its type checked; the last argument replaces one that is missing or
/// null.
Result<std::string> text_of(const Json& object, const char* key) {
  const auto found = object.find(key);
  if (found != object.end() && found->is_string()) return found->get<std::string>();
  return corrupt("[tokenizer] ", key, ": expected a string, got ",
                 found == object.end() ? "nothing" : shown(*found));
}
Result<std::string> text_of(const Json& object, const char* key, std::string_view fallback) {
  const auto found = object.find(key);
  if (found == object.end() || found->is_null()) return std::string(fallback);
  return text_of(object, key);
}
Result<bool> flag_of(const Json& object, const char* key, bool fallback) {
  const auto found = object.find(key);
  if (found == object.end() || found->is_null()) return fallback;
  if (found->is_boolean()) return found->get<bool>();
  return corrupt("[tokenizer] ", key, ": expected true or false, got ", shown(*found));
}
Result<std::int64_t> integer_of(const Json& object, const char* key) {
  const auto found = object.find(key);
  constexpr std::int64_t kLargest = std::numeric_limits<std::int32_t>::max();
  if (found != object.end() && found->is_number_integer()) {
    const bool fits = found->is_number_unsigned() ? found->get<std::uint64_t>() <= kLargest
                                                  : found->get<std::int64_t>() >= 0;
    if (fits) return found->get<std::int64_t>();
  }
  return corrupt("[tokenizer] ", key, ": expected an integer from 0 to ", kLargest, ", got ",
                 found == object.end() ? "nothing" : shown(*found));
}
/// One character.
Result<std::string> char_of(const Json& object, const char* key) {
  KRAIT_ASSIGN(std::string text, text_of(object, key));
  if (!text.empty() && last_char(text) == 0) return text;
  return corrupt("[tokenizer] ", key, ": expected one character, got ", excerpt(text));
}
Result<const Json*> array_of(const Json& object, const char* key) {
  const auto found = object.find(key);
  if (found != object.end() && found->is_array()) return &*found;
  return corrupt("[tokenizer] ", key, ": expected an array, got ",
                 found == object.end() ? "nothing" : shown(*found));
}

/// Calls `read` with the type and the object of every step of a stage, in order. A Sequence holds
/// its steps in `list`; the depth of the JSON bounds the recursion.
template <class Read>
Status for_each_step(const Json& step, const char* list, const Read& read) {
  if (step.is_null()) return {};
  if (!step.is_object()) {
    return corrupt("[tokenizer] expected a step with a type, got ", shown(step));
  }
  KRAIT_ASSIGN(const std::string type, text_of(step, "type"));
  if (type != "Sequence") return read(type, step);
  KRAIT_ASSIGN(const Json* const steps, array_of(step, list));
  for (const Json& inner : *steps) KRAIT_TRY(for_each_step(inner, list, read));
  return {};
}

Status check_count(std::string_view stage, std::size_t count) {
  constexpr std::size_t kMost = 32;
  if (count <= kMost) return {};
  return unsupported("[tokenizer] ", stage, " of ", count, " steps: expected at most ", kMost);
}

/// {"String": ...} or {"Regex": ...}
Result<std::variant<Regex, std::string>> pattern_of(const Json& step) {
  const auto found = step.find("pattern");
  if (found == step.end() || !found->is_object() || found->size() != 1) {
    return corrupt("[tokenizer] pattern: expected one String or Regex");
  }
  if (found->contains("Regex")) {
    KRAIT_ASSIGN(const std::string text, text_of(*found, "Regex"));
    KRAIT_ASSIGN(Regex regex, Regex::compile(text));
    return std::variant<Regex, std::string>(std::move(regex));
  }
  KRAIT_ASSIGN(std::string text, text_of(*found, "String"));
  if (text.empty()) return unsupported("[tokenizer] pattern: an empty string");
  return std::variant<Regex, std::string>(std::move(text));
}

Result<Replacement> replacement_of(const Json& step) {
  KRAIT_ASSIGN(auto pattern, pattern_of(step));
  KRAIT_ASSIGN(std::string content, text_of(step, "content"));
  if (auto* regex = std::get_if<Regex>(&pattern)) {
    // Versions of the format differ in whether $1 means a group.
    if (content.find('$') != std::string_view::npos) {
      return unsupported("[tokenizer] Replace of a Regex by ", excerpt(content),
                         ": $ is not supported");
    }
    return Replacement{std::move(*regex), std::move(content)};
  }
  return Replacement{std::move(std::get<std::string>(pattern)), std::move(content)};
}

Result<SplitBehavior> behavior_of(const Json& step, std::string_view fallback) {
  KRAIT_ASSIGN(const std::string name, text_of(step, "behavior", fallback));
  if (name == "Removed") return SplitBehavior::removed;
  if (name == "Isolated") return SplitBehavior::isolated;
  if (name == "MergedWithPrevious") return SplitBehavior::merged_with_previous;
  if (name == "MergedWithNext") return SplitBehavior::merged_with_next;
  if (name == "Contiguous") return SplitBehavior::contiguous;
  return unsupported("[tokenizer] behavior ", excerpt(name), " of a split is not supported");
}

/// How Metaspace treats the beginning of text: newer files say prepend_scheme, older ones
/// add_prefix_space.
Result<std::string> prepend_scheme_of(const Json& step) {
  KRAIT_ASSIGN(const bool prefix, flag_of(step, "add_prefix_space", true));
  KRAIT_ASSIGN(const std::string scheme,
               text_of(step, "prepend_scheme", prefix ? "always" : "never"));
  if (scheme == "always" || scheme == "first" || scheme == "never") return scheme;
  return unsupported("[tokenizer] prepend_scheme ", excerpt(scheme), " is not supported");
}

Status read_normalizer(std::string_view type, const Json& step, TokenizerSpec& spec) {
  auto& steps = spec.normalizer;
  if (type == "NFC") {
    steps.emplace_back(NormalForm::nfc);
  } else if (type == "NFD") {
    steps.emplace_back(NormalForm::nfd);
  } else if (type == "NFKC") {
    steps.emplace_back(NormalForm::nfkc);
  } else if (type == "NFKD") {
    steps.emplace_back(NormalForm::nfkd);
  } else if (type == "Lowercase") {
    steps.emplace_back(Lowercase{});
  } else if (type == "Prepend") {
    KRAIT_ASSIGN(std::string prefix, text_of(step, "prepend"));
    steps.emplace_back(Prepend{std::move(prefix)});
  } else if (type == "Replace") {
    KRAIT_ASSIGN(Replacement replacement, replacement_of(step));
    steps.emplace_back(std::move(replacement));
  } else {
    return unsupported("[tokenizer] normalizer ", excerpt(type), " is not supported");
  }
  return check_count("normalizer", steps.size());
}

Status read_pre_tokenizer(std::string_view type, const Json& step, TokenizerSpec& spec) {
  auto& steps = spec.pre_tokenizer;
  if (type == "ByteLevel") {
    for (const PreTokenStep& earlier : steps) {
      // Bytes spelt twice would double the text with every turn.
      if (std::holds_alternative<SpellBytes>(earlier)) {
        return unsupported("[tokenizer] pre-tokenizer ByteLevel behind ByteLevel");
      }
    }
    KRAIT_ASSIGN(const bool prefix, flag_of(step, "add_prefix_space", true));
    KRAIT_ASSIGN(const bool words, flag_of(step, "use_regex", true));
    if (prefix) steps.emplace_back(Prefix{" "});
    if (words) {
      KRAIT_ASSIGN(Regex regex, Regex::compile(kGpt2Words));
      steps.emplace_back(Split{std::move(regex)});
    }
    steps.emplace_back(SpellBytes{});
  } else if (type == "Split") {
    KRAIT_ASSIGN(auto pattern, pattern_of(step));
    KRAIT_ASSIGN(const SplitBehavior behavior, behavior_of(step, ""));
    KRAIT_ASSIGN(const bool invert, flag_of(step, "invert", false));
    Split split{CharClass{}, behavior, invert};
    std::visit([&](auto& kind) { split.pattern = std::move(kind); }, pattern);
    steps.emplace_back(std::move(split));
  } else if (type == "Digits") {
    KRAIT_ASSIGN(const bool single, flag_of(step, "individual_digits", false));
    steps.emplace_back(
        Split{is_numeric, single ? SplitBehavior::isolated : SplitBehavior::contiguous});
  } else if (type == "Punctuation") {
    KRAIT_ASSIGN(const SplitBehavior behavior, behavior_of(step, "Isolated"));
    steps.emplace_back(Split{is_punctuation, behavior});
  } else if (type == "Metaspace") {
    KRAIT_ASSIGN(std::string marker, char_of(step, "replacement"));
    KRAIT_ASSIGN(const std::string scheme, prepend_scheme_of(step));
    KRAIT_ASSIGN(const bool split, flag_of(step, "split", true));
    steps.emplace_back(ReplaceBlanks{marker});
    if (scheme != "never") steps.emplace_back(Prefix{marker, scheme == "first"});
    if (split) steps.emplace_back(Split{std::move(marker), SplitBehavior::merged_with_next});
  } else if (type == "Whitespace") {
    // \w as this step means it: unlike elsewhere in the format, numbers such as ½ are not words.
    KRAIT_ASSIGN(Regex regex,
                 Regex::compile(R"([\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\x{200C}\x{200D}]+|)"
                                R"([^\s\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\x{200C}\x{200D}]+)"));
    steps.emplace_back(Split{std::move(regex), SplitBehavior::removed, true});
  } else if (type == "WhitespaceSplit") {
    steps.emplace_back(Split{is_whitespace, SplitBehavior::removed});
  } else if (type == "CharDelimiterSplit") {
    KRAIT_ASSIGN(std::string delimiter, char_of(step, "delimiter"));
    steps.emplace_back(Split{std::move(delimiter), SplitBehavior::removed});
  } else {
    return unsupported("[tokenizer] pre-tokenizer ", excerpt(type), " is not supported");
  }
  return check_count("pre-tokenizer", steps.size());
}

Status read_decoder(std::string_view type, const Json& step, TokenizerSpec& spec) {
  auto& steps = spec.decoder;
  if (type == "ByteLevel") {
    steps.emplace_back(DecodeBytes{});
  } else if (type == "ByteFallback") {
    steps.emplace_back(DecodeByteFallback{});
  } else if (type == "Fuse") {
    steps.emplace_back(DecodeFuse{});
  } else if (type == "Metaspace") {
    KRAIT_ASSIGN(std::string marker, char_of(step, "replacement"));
    KRAIT_ASSIGN(const std::string scheme, prepend_scheme_of(step));
    steps.emplace_back(DecodeMetaspace{std::move(marker), scheme != "never"});
  } else if (type == "Replace") {
    KRAIT_ASSIGN(Replacement replacement, replacement_of(step));
    steps.emplace_back(std::move(replacement));
  } else if (type == "Strip") {
    KRAIT_ASSIGN(std::string content, char_of(step, "content"));
    KRAIT_ASSIGN(const std::int64_t start, integer_of(step, "start"));
    KRAIT_ASSIGN(const std::int64_t stop, integer_of(step, "stop"));
    steps.emplace_back(DecodeStrip{std::move(content), static_cast<std::size_t>(start),
                                   static_cast<std::size_t>(stop)});
  } else {
    return unsupported("[tokenizer] decoder ", excerpt(type), " is not supported");
  }
  return {};
}

/// One id list of a template's special_tokens.
Status append_template_ids(const Json& step, const std::string& name,
                           std::vector<std::int32_t>& ids) {
  const auto specials = step.find("special_tokens");
  if (specials == step.end() || !specials->is_object() || !specials->contains(name)) {
    return corrupt("[tokenizer] special_tokens of the post-processor do not hold ", excerpt(name));
  }
  KRAIT_ASSIGN(const Json* const list, array_of((*specials)[name], "ids"));
  for (const Json& id : *list) {
    KRAIT_ASSIGN(const std::int64_t value, integer_of(Json{{"ids", id}}, "ids"));
    ids.push_back(static_cast<std::int32_t>(value));
  }
  return {};
}

Status read_post_processor(std::string_view type, const Json& step, TokenizerSpec& spec) {
  if (type == "ByteLevel") return {};  // it moves offsets, which are not kept here
  if (type != "TemplateProcessing") {
    return unsupported("[tokenizer] post-processor ", excerpt(type), " is not supported");
  }
  // The template for one text: special tokens around $A. A later template goes around the former.
  std::vector<std::int32_t> before, after;
  int texts = 0;
  KRAIT_ASSIGN(const Json* const parts, array_of(step, "single"));
  for (const Json& part : *parts) {
    if (part.is_object() && part.contains("Sequence")) {
      ++texts;
    } else if (part.is_object() && part.contains("SpecialToken")) {
      const Json& token = part["SpecialToken"];
      if (!token.is_object()) return corrupt("[tokenizer] SpecialToken: expected an object");
      KRAIT_ASSIGN(const std::string name, text_of(token, "id"));
      KRAIT_TRY(append_template_ids(step, name, texts == 0 ? before : after));
    } else {
      return corrupt("[tokenizer] post-processor: expected a Sequence or a SpecialToken, got ",
                     shown(part));
    }
  }
  if (texts != 1) {
    return unsupported(
        "[tokenizer] post-processor: expected the text once in the template, got it ", texts,
        " times");
  }
  spec.before.insert(spec.before.begin(), before.begin(), before.end());
  spec.after.insert(spec.after.end(), after.begin(), after.end());
  return {};
}

Status read_merges(const Json& model, TokenizerSpec& spec) {
  KRAIT_ASSIGN(const Json* const merges, array_of(model, "merges"));
  if (merges->size() > static_cast<std::size_t>(std::numeric_limits<std::int32_t>::max())) {
    return unsupported("[tokenizer] ", merges->size(), " merges");
  }
  spec.merges.reserve(merges->size());
  for (const Json& merge : *merges) {
    const std::size_t rank = spec.merges.size();
    if (merge.is_string()) {
      const auto& text = merge.get_ref<const std::string&>();
      if (text.starts_with("#version")) continue;
      KRAIT_ASSIGN(Merge parsed, parse_merge(text, rank));
      spec.merges.push_back(std::move(parsed));
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() &&
               merge[1].is_string()) {
      spec.merges.push_back({merge[0].get<std::string>(), merge[1].get<std::string>(),
                             static_cast<std::int32_t>(rank)});
    } else {
      return corrupt("[tokenizer] merge ", rank, ": expected two pieces, got ", shown(merge));
    }
  }
  return {};
}

Status read_model(const Json& model, TokenizerSpec& spec) {
  if (!model.is_object())
    return corrupt("[tokenizer] model: expected an object, got ", shown(model));
  KRAIT_ASSIGN(const std::string type, text_of(model, "type", "BPE"));  // old files do not say
  if (type != "BPE") return unsupported("[tokenizer] model ", excerpt(type), " is not supported");
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    KRAIT_ASSIGN(const std::string value, text_of(model, key, ""));
    if (!value.empty()) {
      return unsupported("[tokenizer] ", key, " ", excerpt(value), " is not supported");
    }
  }
  if (const auto dropout = model.find("dropout");
      dropout != model.end() && !dropout->is_null() && *dropout != 0) {
    return unsupported("[tokenizer] dropout ", shown(*dropout), " is not supported");
  }
  if (const auto unknown = model.find("unk_token"); unknown != model.end() && !unknown->is_null()) {
    KRAIT_ASSIGN(spec.bpe.unknown, text_of(model, "unk_token"));
  }
  KRAIT_ASSIGN(spec.bpe.fuse_unknown, flag_of(model, "fuse_unk", false));
  KRAIT_ASSIGN(spec.bpe.byte_fallback, flag_of(model, "byte_fallback", false));
  KRAIT_ASSIGN(spec.bpe.ignore_merges, flag_of(model, "ignore_merges", false));

  const auto vocabulary = model.find("vocab");
  if (vocabulary == model.end() || !vocabulary->is_object()) {
    return corrupt("[tokenizer] vocab: expected an object of pieces and ids");
  }
  spec.vocabulary.reserve(vocabulary->size());
  for (const auto& [piece, id] : vocabulary->items()) {
    if (!id.is_number_integer() || id < 0 || id >= Vocabulary::kMaxSize) {
      return corrupt("[tokenizer] vocab: ", excerpt(piece), " has id ", shown(id),
                     ": expected 0 to ", Vocabulary::kMaxSize - 1);
    }
    spec.vocabulary.emplace_back(piece, id.get<std::int32_t>());
  }
  return read_merges(model, spec);
}

Status read_added_tokens(const Json& tokens, TokenizerSpec& spec) {
  if (tokens.is_null()) return {};
  if (!tokens.is_array()) return corrupt("[tokenizer] added_tokens: expected an array");
  for (const Json& entry : tokens) {
    if (!entry.is_object()) return corrupt("[tokenizer] added_tokens: expected objects");
    AddedToken token;
    KRAIT_ASSIGN(const std::int64_t id, integer_of(entry, "id"));
    token.id = static_cast<std::int32_t>(id);
    KRAIT_ASSIGN(token.content, text_of(entry, "content"));
    KRAIT_ASSIGN(token.special, flag_of(entry, "special", false));
    KRAIT_ASSIGN(token.normalized, flag_of(entry, "normalized", !token.special));
    KRAIT_ASSIGN(token.lstrip, flag_of(entry, "lstrip", false));
    KRAIT_ASSIGN(token.rstrip, flag_of(entry, "rstrip", false));
    KRAIT_ASSIGN(token.single_word, flag_of(entry, "single_word", false));
    spec.added.push_back(std::move(token));
  }
  return {};
}

}  // namespace

Result<TokenizerSpec> read_tokenizer_json(std::string_view json) {
  KRAIT_ASSIGN(const Json root, parse_json(json, "tokenizer.json"));
  if (!root.is_object()) return corrupt("[tokenizer] expected an object, got ", shown(root));
  const Json nothing;
  const auto member = [&](const char* key) -> const Json& {
    const auto found = root.find(key);
    return found == root.end() ? nothing : *found;
  };
  TokenizerSpec spec;
  const auto each = [&](const char* key, const char* list, auto read) {
    return for_each_step(member(key), list, [&](std::string_view type, const Json& step) {
      return read(type, step, spec);
    });
  };
  KRAIT_TRY(read_model(member("model"), spec));
  KRAIT_TRY(read_added_tokens(member("added_tokens"), spec));
  KRAIT_TRY(each("normalizer", "normalizers", read_normalizer));
  KRAIT_TRY(each("pre_tokenizer", "pretokenizers", read_pre_tokenizer));
  KRAIT_TRY(each("decoder", "decoders", read_decoder));
  KRAIT_TRY(each("post_processor", "processors", read_post_processor));
  if (member("decoder").is_null()) spec.decoder.emplace_back(DecodeJoin{});
  return spec;
}

}  // namespace krait
