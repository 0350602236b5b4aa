// Cutting normalised text into the words that the model sees one at a time.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "runtime/text/regex.h"
#include <krait/status.h>

namespace krait {

/// What becomes of the matches of a split; what lies between them is a piece in any case.
enum class SplitBehavior {
  removed,               ///< gone
  isolated,              ///< each a piece
  merged_with_previous,  ///< joined to what is before
  merged_with_next,      ///< joined to what follows
  contiguous,            ///< neighbouring matches joined to one piece
};

using CharClass = bool (*)(char32_t);

/// Cuts at the matches of a pattern or, inverted, at what lies between them.
struct Split {
  std::variant<Regex, std::string, CharClass> pattern;  // a string is not empty
  SplitBehavior behavior = SplitBehavior::isolated;
  bool invert = false;
};

/// Puts `prefix` before a piece that does not begin with it.
struct Prefix {
  std::string prefix;
  bool only_first = false;  // only the piece that begins the text
};

/// Writes `content` for every blank.
struct ReplaceBlanks {
  std::string content;
};

/// Writes every byte as a character of GPT-2's alphabet.
struct SpellBytes {};

using PreTokenStep = std::variant<Split, Prefix, ReplaceBlanks, SpellBytes>;

/// GPT-2's words: contractions, letters, digits, other signs, each with one blank before.
constexpr std::string_view kGpt2Words =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

/// Runs text through steps and hands on word by word, holding no list of them. For one thread.
class PreTokenizer {
 public:
  using Sink = std::function<Status(std::string_view word)>;

  /// `steps` must outlive this.
  explicit PreTokenizer(const std::vector<PreTokenStep>& steps);

  /// Calls `sink` for every word of `text`, which must be UTF-8. `at_start`: whether `text` is the
  /// beginning of what is being encoded.
  Status run(std::string_view text, bool at_start, const Sink& sink);

 private:
  /// What a step needs while it works.
  struct Scratch {
    std::vector<RegexSearch> search;  // one for a regular expression
    std::string text;
  };

  Status run_from(std::size_t step, std::string_view piece, bool at_start, const Sink& sink);
  Status apply(const Split& split, std::size_t step, std::string_view piece, bool at_start,
               const Sink& sink);
  Status apply(const Prefix& prefix, std::size_t step, std::string_view piece, bool at_start,
               const Sink& sink);
  Status apply(const ReplaceBlanks& blanks, std::size_t step, std::string_view piece, bool at_start,
               const Sink& sink);
  Status apply(const SpellBytes&, std::size_t step, std::string_view piece, bool at_start,
               const Sink& sink);

  const std::vector<PreTokenStep>& steps_;
  std::vector<Scratch> scratch_;
};

}  // namespace krait
