#include "runtime/text/added_tokens.h"

#include <algorithm>

#include "runtime/core/try.h"
#include "runtime/text/unicode.h"

namespace krait {
namespace {

/// Where the white space at the end of `text` begins.
std::size_t trailing_space(std::string_view text) {
  std::size_t end = text.size();
  while (end > 0) {
    const std::size_t begin = last_char(text.substr(0, end));
    std::size_t at = begin;
    if (!is_whitespace(next_char(text, at))) break;
    end = begin;
  }
  return end;
}

/// Where the white space at the beginning of `text` ends.
std::size_t leading_space(std::string_view text) {
  std::size_t end = 0;
  for (std::size_t at = 0; at < text.size(); end = at) {
    if (!is_whitespace(next_char(text, at))) break;
  }
  return end;
}

bool touches_word(std::string_view before, std::string_view after) {
  if (!before.empty()) {
    std::size_t at = last_char(before);
    if (is_word(next_char(before, at))) return true;
  }
  std::size_t at = 0;
  return !after.empty() && is_word(next_char(after, at));
}

}  // namespace

AddedTokenSet::AddedTokenSet(std::vector<Entry> entries) : entries_(std::move(entries)) {
  std::erase_if(entries_, [](const Entry& entry) { return entry.text.empty(); });
  const auto text_less = [](const Entry& a, const Entry& b) { return a.text < b.text; };
  const auto text_equal = [](const Entry& a, const Entry& b) { return a.text == b.text; };
  std::stable_sort(entries_.begin(), entries_.end(), text_less);
  entries_.erase(std::unique(entries_.begin(), entries_.end(), text_equal), entries_.end());
  for (const Entry& entry : entries_) {
    ++starts_[static_cast<unsigned char>(entry.text[0]) + std::size_t{1}];
  }
  for (std::size_t i = 1; i < starts_.size(); ++i) starts_[i] += starts_[i - 1];
}

/// The longest entry that `text` begins with, or null. The entries that agree with the first
/// `depth` bytes are neighbours; each further byte narrows them down.
const AddedTokenSet::Entry* AddedTokenSet::longest_match(std::string_view text) const {
  const auto first = static_cast<unsigned char>(text[0]);
  auto begin = entries_.begin() + starts_[first];
  auto end = entries_.begin() + starts_[first + std::size_t{1}];
  const Entry* longest = nullptr;
  for (std::size_t depth = 1; begin != end; ++depth) {
    if (begin->text.size() == depth) longest = &*begin++;  // the shortest is the first of them
    if (depth == text.size()) break;
    const auto less = [&](const Entry& entry, char byte) {
      return static_cast<unsigned char>(entry.text[depth]) < static_cast<unsigned char>(byte);
    };
    const auto greater = [&](char byte, const Entry& entry) {
      return static_cast<unsigned char>(byte) < static_cast<unsigned char>(entry.text[depth]);
    };
    begin = std::lower_bound(begin, end, text[depth], less);
    end = std::upper_bound(begin, end, text[depth], greater);
  }
  return longest;
}

Status AddedTokenSet::cut(std::string_view text, bool parse_special, const Sink& sink) const {
  std::size_t done = 0;
  Span space;  // the last stretch of white space that a token took on its right
  for (std::size_t at = 0; at < text.size() && !entries_.empty();) {
    const Entry* match = longest_match(text.substr(at));
    if (match == nullptr) {
      ++at;
      continue;
    }
    std::size_t begin = at;
    std::size_t end = at + match->text.size();
    at = end;
    // What fails these conditions is plain text, and so is what lies inside it.
    const AddedToken& token = match->token;
    if (token.special && !parse_special) continue;
    if (token.single_word && touches_word(text.substr(0, begin), text.substr(end))) continue;
    if (token.lstrip) {
      begin = begin > done ? done + trailing_space(text.substr(done, begin - done)) : done;
    }
    if (token.rstrip) {
      if (end < space.begin || end >= space.end) {
        space = {end, end + leading_space(text.substr(end))};
      }
      end = space.end;
    }
    if (begin >= end) continue;
    if (begin > done) KRAIT_TRY(sink(text.substr(done, begin - done), nullptr));
    // A token of white space counts again where the one before it has taken that with it, unless it
    // strips its left: so it is in Hugging Face's library, with which models were trained.
    KRAIT_TRY(sink({}, &token));
    done = end;
  }
  return done < text.size() ? sink(text.substr(done), nullptr) : Status();
}

}  // namespace krait
