// Finding added tokens in text.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include <krait/tokenizer.h>

namespace krait {

/// A set of tokens that are looked for together. The leftmost match wins, the longest of those that
/// begin together, and matches do not overlap.
class AddedTokenSet {
 public:
  /// A token and the text that stands for it, which is its content or the normal form of that.
  struct Entry {
    std::string text;
    AddedToken token;
  };
  /// Of entries with one text, the first counts; those without text are never found.
  explicit AddedTokenSet(std::vector<Entry> entries);

  /// Calls `sink` for every part of `text` in order: with a token, or else (null) with the text
  /// between tokens, which is not empty. Special tokens count only if `parse_special`.
  using Sink = std::function<Status(std::string_view between, const AddedToken* token)>;
  Status cut(std::string_view text, bool parse_special, const Sink& sink) const;

 private:
  const Entry* longest_match(std::string_view text) const;

  std::vector<Entry> entries_;               // sorted by text
  std::array<std::uint32_t, 257> starts_{};  // where in entries_ the texts with a first byte begin
};

}  // namespace krait
