#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <unordered_map>
#include <unordered_set>

#include "runtime/core/try.h"
#include "runtime/text/tokenizer_spec.h"
#include "runtime/text/unicode.h"

namespace krait {
namespace {

constexpr std::string_view kBlank = "\xE2\x96\x81";  // U+2581

/// SentencePiece has no list of merges: any two neighbours that together are a piece may merge, the
/// highest score first. So every way to cut a piece in two pieces is a merge, ranked by its score.
Result<std::vector<Merge>> merges_of_scores(const TokenizerParts& parts) {
  if (parts.scores.size() != parts.pieces.size()) {
    return invalid("[tokenizer] scores: expected one for each of ", parts.pieces.size(),
                   " pieces, got ", parts.scores.size());
  }
  std::unordered_set<std::int32_t> added;
  for (const AddedToken& token : parts.added) added.insert(token.id);
  std::unordered_map<std::string_view, std::size_t> mergeable;
  std::vector<float> scores;
  for (std::size_t id = 0; id < parts.pieces.size(); ++id) {
    if (std::isnan(parts.scores[id])) return invalid("[tokenizer] score of piece ", id, " is NaN");
    const std::string& piece = parts.pieces[id];
    const bool is_byte = piece.size() == 6 && piece.starts_with("<0x") && piece.ends_with('>');
    if (piece.empty() || is_byte || added.contains(static_cast<std::int32_t>(id))) continue;
    mergeable.emplace(piece, id);
    scores.push_back(parts.scores[id]);
  }
  std::sort(scores.begin(), scores.end(), std::greater<>());
  scores.erase(std::unique(scores.begin(), scores.end()), scores.end());

  std::vector<Merge> merges;
  for (const auto& [piece, id] : mergeable) {
    constexpr std::size_t kLongest = 1024;  // bytes; cutting is quadratic
    if (piece.size() > kLongest) {
      return unsupported("[tokenizer] piece ", id, " has ", piece.size(),
                         " bytes: expected at most ", kLongest);
    }
    const auto better =
        std::lower_bound(scores.begin(), scores.end(), parts.scores[id], std::greater<>());
    const auto rank = static_cast<std::int32_t>(better - scores.begin());
    for (std::size_t cut = 1; cut < piece.size(); ++cut) {
      const auto left = piece.substr(0, cut);
      const auto right = piece.substr(cut);
      if (mergeable.contains(left) && mergeable.contains(right)) {
        merges.push_back({std::string(left), std::string(right), rank});
      }
    }
  }
  return merges;
}

Status read_byte_level(const TokenizerParts& parts, TokenizerSpec& spec) {
  for (std::size_t i = 0; i < parts.merges.size(); ++i) {
    KRAIT_ASSIGN(Merge merge, parse_merge(parts.merges[i], i));
    spec.merges.push_back(std::move(merge));
  }
  std::vector<std::string> splits = parts.splits;
  if (splits.empty()) splits.emplace_back(kGpt2Words);
  for (const std::string& pattern : splits) {
    KRAIT_ASSIGN(Regex regex, Regex::compile(pattern));
    spec.pre_tokenizer.emplace_back(Split{std::move(regex), SplitBehavior::isolated, false});
  }
  spec.pre_tokenizer.emplace_back(SpellBytes{});
  spec.decoder.emplace_back(DecodeBytes{});
  return {};
}

Status read_sentencepiece(const TokenizerParts& parts, TokenizerSpec& spec) {
  KRAIT_ASSIGN(spec.merges, merges_of_scores(parts));
  spec.bpe.byte_fallback = true;
  spec.bpe.fuse_unknown = true;
  if (parts.unknown) spec.bpe.unknown = parts.pieces[static_cast<std::size_t>(*parts.unknown)];
  if (parts.add_space_prefix) spec.normalizer.emplace_back(Prepend{std::string(kBlank)});
  spec.normalizer.emplace_back(Replacement{" ", std::string(kBlank)});
  spec.decoder.emplace_back(Replacement{std::string(kBlank), " "});
  spec.decoder.emplace_back(DecodeByteFallback{});
  spec.decoder.emplace_back(DecodeFuse{});
  if (parts.add_space_prefix) spec.decoder.emplace_back(DecodeStrip{" ", 1, 0});
  return {};
}

}  // namespace

Result<Merge> parse_merge(std::string_view text, std::size_t rank) {
  const std::size_t blank = text.find(' ');
  if (blank == std::string_view::npos || text.find(' ', blank + 1) != std::string_view::npos) {
    return corrupt("[tokenizer] merge ", rank, ": expected two pieces with a blank between, got ",
                   excerpt(text));
  }
  return Merge{std::string(text.substr(0, blank)), std::string(text.substr(blank + 1)),
               static_cast<std::int32_t>(rank)};
}

Result<TokenizerSpec> read_tokenizer_parts(TokenizerParts parts) {
  if (parts.pieces.size() > static_cast<std::size_t>(Vocabulary::kMaxSize) ||
      parts.merges.size() > static_cast<std::size_t>(std::numeric_limits<std::int32_t>::max())) {
    return unsupported("[tokenizer] ", parts.pieces.size(), " pieces and ", parts.merges.size(),
                       " merges: expected at most ", Vocabulary::kMaxSize, " pieces");
  }
  constexpr std::size_t kMostSplits = 16;
  if (parts.splits.size() > kMostSplits) {
    return unsupported("[tokenizer] ", parts.splits.size(), " splits: expected at most ",
                       kMostSplits);
  }
  const auto count = static_cast<std::int32_t>(parts.pieces.size());
  for (const auto& [name, id] :
       {std::pair{"unknown", parts.unknown}, {"bos", parts.bos}, {"eos", parts.eos}}) {
    if (id && (*id < 0 || *id >= count)) {
      return invalid("[tokenizer] ", name, ": expected an id from 0 to ", count - 1, ", got ", *id);
    }
  }
  if ((parts.add_bos && !parts.bos) || (parts.add_eos && !parts.eos)) {
    return invalid("[tokenizer] add_bos and add_eos need bos and eos");
  }

  TokenizerSpec spec;
  KRAIT_TRY(parts.kind == TokenizerParts::Kind::byte_level ? read_byte_level(parts, spec)
                                                           : read_sentencepiece(parts, spec));
  spec.bpe.ignore_merges = parts.ignore_merges;
  spec.bos = parts.bos;
  spec.eos = parts.eos;
  if (parts.add_bos) spec.before.push_back(*parts.bos);
  if (parts.add_eos) spec.after.push_back(*parts.eos);
  spec.vocabulary.reserve(parts.pieces.size());
  for (std::int32_t id = 0; id < count; ++id) {
    spec.vocabulary.emplace_back(std::move(parts.pieces[static_cast<std::size_t>(id)]), id);
  }
  spec.added = std::move(parts.added);
  return spec;
}

}  // namespace krait
