// Byte-pair encoding: a word begins as characters, and neighbours merge, best rank first.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "runtime/text/vocabulary.h"
#include <krait/status.h>

namespace krait {

/// `left` and `right`, standing side by side, become one. The lowest rank goes first, the leftmost
/// pair of equal ranks before the others.
struct Merge {
  std::string left;
  std::string right;
  std::int32_t rank = 0;
};

struct BpeOptions {
  std::optional<std::string> unknown;  // the piece for characters that are not in the vocabulary
  bool fuse_unknown = false;           // a row of those becomes one
  bool byte_fallback = false;          // spell those with <0x00> to <0xFF>, if all are there
  bool ignore_merges = false;          // a word that is a piece is that piece
};

class Bpe {
 public:
  /// Refuses merges of pieces that `vocabulary` does not have. `vocabulary` must outlive this.
  static Result<Bpe> create(const Vocabulary& vocabulary, const std::vector<Merge>& merges,
                            const BpeOptions& options);

 private:
  friend class BpeEncoder;

  struct Target {
    std::int32_t rank;
    std::int32_t id;
  };
  static std::uint64_t key(std::int32_t left, std::int32_t right) {
    return static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32 |
           static_cast<std::uint32_t>(right);
  }
  /// Pairs of neighbouring ids differ in few bits, and differ there alike: mix them.
  struct Mix {
    std::size_t operator()(std::uint64_t x) const {
      x *= 0x9E3779B97F4A7C15u;
      return static_cast<std::size_t>(x ^ x >> 32);
    }
  };
  explicit Bpe(const Vocabulary& vocabulary) : vocabulary_(&vocabulary) {}

  const Vocabulary* vocabulary_;
  std::unordered_map<std::uint64_t, Target, Mix> merges_;
  std::vector<std::int32_t> short_chars_;  // ids of the characters of one or two bytes; or -1
  std::vector<std::int32_t> byte_ids_;     // ids of <0x00> to <0xFF>, or -1; empty: no fallback
  std::optional<std::int32_t> unknown_;
  bool fuse_unknown_ = false;
  bool ignore_merges_ = false;
};

/// Encodes words. Remembers the ones it has seen, up to a bound. One per thread.
class BpeEncoder {
 public:
  explicit BpeEncoder(const Bpe& bpe) : bpe_(bpe) {}

  /// Appends the ids of `word`, which must be UTF-8, to `ids`. O(n log n) in its length.
  void encode(std::string_view word, std::vector<std::int32_t>& ids);

 private:
  /// A symbol of the word being merged: a list, linked by indices. -1: no neighbour.
  struct Symbol {
    std::int32_t id;
    std::int32_t previous;
    std::int32_t next;
  };
  /// A merge that was possible when it was queued.
  struct Candidate {
    std::int32_t rank;
    std::int32_t at;  // index of the left symbol
    std::int32_t left;
    std::int32_t right;
    std::int32_t id;

    /// std::push_heap keeps the largest on top: that is the lowest rank, then the leftmost.
    bool operator<(const Candidate& other) const {
      return rank != other.rank ? rank > other.rank : at > other.at;
    }
  };
  struct Remembered {
    std::size_t begin;
    std::size_t size;
  };
  struct WordHash : std::hash<std::string_view> {
    using is_transparent = void;
  };

  void spell(std::string_view word);
  void queue(std::int32_t at);
  void merge();

  const Bpe& bpe_;
  std::vector<Symbol> symbols_;
  std::vector<Candidate> queue_;
  std::unordered_map<std::string, Remembered, WordHash, std::equal_to<>> words_;
  std::vector<std::int32_t> remembered_;
};

}  // namespace krait
