#include "runtime/text/bpe.h"

#include <algorithm>
#include <limits>

#include "runtime/core/try.h"
#include "runtime/text/unicode.h"

namespace krait {
namespace {

constexpr char32_t kShortChars = 0x800;  // these have one or two bytes

std::string byte_piece(int byte) {
  constexpr std::string_view kHex = "0123456789ABCDEF";
  return {'<',
          '0',
          'x',
          kHex[static_cast<std::size_t>(byte >> 4)],
          kHex[static_cast<std::size_t>(byte & 15)],
          '>'};
}

}  // namespace

Result<Bpe> Bpe::create(const Vocabulary& vocabulary, const std::vector<Merge>& merges,
                        const BpeOptions& options) {
  Bpe bpe(vocabulary);
  bpe.merges_.reserve(merges.size());
  for (const Merge& merge : merges) {
    const std::string joined = merge.left + merge.right;
    const auto left = vocabulary.find(merge.left);
    const auto right = vocabulary.find(merge.right);
    const auto result = vocabulary.find(joined);
    if (!left || !right || !result) {
      return corrupt("[tokenizer] merge of ", excerpt(merge.left), " and ", excerpt(merge.right),
                     ": ",
                     excerpt(!left    ? merge.left
                             : !right ? merge.right
                                      : joined),
                     " is not in the vocabulary");
    }
    // A pair that is listed twice has its last rank, as elsewhere.
    bpe.merges_[key(*left, *right)] = {merge.rank, *result};
  }

  bpe.short_chars_.resize(kShortChars, -1);
  for (std::int32_t id = 0; id < vocabulary.size(); ++id) {
    const std::string* piece = vocabulary.piece(id);
    if (piece == nullptr || piece->empty() || last_char(*piece) != 0) continue;
    std::size_t at = 0;
    const char32_t c = next_char(*piece, at);
    if (c < kShortChars) bpe.short_chars_[c] = id;
  }
  if (options.byte_fallback) {
    for (int byte = 0; byte < 256; ++byte) {
      bpe.byte_ids_.push_back(vocabulary.find(byte_piece(byte)).value_or(-1));
    }
  }
  if (options.unknown) {
    bpe.unknown_ = vocabulary.find(*options.unknown);
    if (!bpe.unknown_) {
      return corrupt("[tokenizer] unk_token ", excerpt(*options.unknown),
                     " is not in the vocabulary");
    }
  }
  bpe.fuse_unknown_ = options.fuse_unknown;
  bpe.ignore_merges_ = options.ignore_merges;
  return bpe;
}

void BpeEncoder::encode(std::string_view word, std::vector<std::int32_t>& ids) {
  if (bpe_.ignore_merges_) {
    if (const auto id = bpe_.vocabulary_->find(word)) {
      ids.push_back(*id);
      return;
    }
  }
  // Text repeats its words, but not its long ones.
  constexpr std::size_t kLongestWord = 64;
  constexpr std::size_t kMostWords = 1 << 15;
  const bool usual = word.size() <= kLongestWord;
  if (usual) {
    if (const auto found = words_.find(word); found != words_.end()) {
      const auto begin = remembered_.begin() + static_cast<std::ptrdiff_t>(found->second.begin);
      ids.insert(ids.end(), begin, begin + static_cast<std::ptrdiff_t>(found->second.size));
      return;
    }
  }
  spell(word);
  merge();
  const std::size_t first = ids.size();
  // The leftmost symbol is never merged away: the list begins at 0.
  for (std::int32_t at = symbols_.empty() ? -1 : 0; at >= 0;) {
    const Symbol& symbol = symbols_[static_cast<std::size_t>(at)];
    ids.push_back(symbol.id);
    at = symbol.next;
  }
  if (usual && words_.size() < kMostWords) {
    words_.emplace(word, Remembered{remembered_.size(), ids.size() - first});
    remembered_.insert(remembered_.end(), ids.begin() + static_cast<std::ptrdiff_t>(first),
                       ids.end());
  }
}

void BpeEncoder::spell(std::string_view word) {
  symbols_.clear();
  const auto add = [&](std::int32_t id) {
    const auto at = static_cast<std::int32_t>(symbols_.size());
    if (at > 0) symbols_.back().next = at;
    symbols_.push_back({id, at - 1, -1});
  };
  bool after_unknown = false;
  for (std::size_t at = 0; at < word.size();) {
    const std::size_t begin = at;
    const char32_t c = next_char(word, at);
    const std::string_view text = word.substr(begin, at - begin);
    const std::int32_t id =
        c < kShortChars ? bpe_.short_chars_[c] : bpe_.vocabulary_->find(text).value_or(-1);
    if (id >= 0) {
      add(id);
      after_unknown = false;
      continue;
    }
    const auto byte_id = [&](char byte) {
      return bpe_.byte_ids_[static_cast<unsigned char>(byte)];
    };
    if (!bpe_.byte_ids_.empty() &&
        std::all_of(text.begin(), text.end(), [&](char byte) { return byte_id(byte) >= 0; })) {
      for (const char byte : text) add(byte_id(byte));
      after_unknown = false;
      continue;
    }
    // Without an unknown piece the character is dropped.
    if (bpe_.unknown_ && !(after_unknown && bpe_.fuse_unknown_)) add(*bpe_.unknown_);
    after_unknown = true;
  }
}

/// Queues the merge of symbol `at` with the next one, if there is one.
void BpeEncoder::queue(std::int32_t at) {
  const Symbol& left = symbols_[static_cast<std::size_t>(at)];
  if (left.next < 0) return;
  const Symbol& right = symbols_[static_cast<std::size_t>(left.next)];
  const auto found = bpe_.merges_.find(Bpe::key(left.id, right.id));
  if (found == bpe_.merges_.end()) return;
  queue_.push_back({found->second.rank, at, left.id, right.id, found->second.id});
}

void BpeEncoder::merge() {
  queue_.clear();
  const auto count = static_cast<std::int32_t>(symbols_.size());
  for (std::int32_t at = 0; at < count; ++at) queue(at);
  std::make_heap(queue_.begin(), queue_.end());
  const auto requeue = [&](std::int32_t at) {
    const std::size_t before = queue_.size();
    queue(at);
    if (queue_.size() > before) std::push_heap(queue_.begin(), queue_.end());
  };
  while (!queue_.empty()) {
    std::pop_heap(queue_.begin(), queue_.end());
    const Candidate best = queue_.back();
    queue_.pop_back();
    Symbol& left = symbols_[static_cast<std::size_t>(best.at)];
    // An earlier merge may have taken one of the two; a symbol that is gone has id -1.
    if (left.id != best.left || left.next < 0) continue;
    Symbol& right = symbols_[static_cast<std::size_t>(left.next)];
    if (right.id != best.right) continue;

    left.id = best.id;
    left.next = right.next;
    right.id = -1;
    if (left.next >= 0) symbols_[static_cast<std::size_t>(left.next)].previous = best.at;
    if (left.previous >= 0) requeue(left.previous);
    requeue(best.at);
  }
}

}  // namespace krait
