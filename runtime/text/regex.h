// Regular expressions as tokenizer.json writes them: Oniguruma's dialect, run by PCRE2.
#pragma once

#define PCRE2_CODE_UNIT_WIDTH 8
#include <cstddef>
#include <memory>
#include <optional>
#include <pcre2.h>
#include <string>
#include <string_view>

#include "runtime/text/unicode.h"
#include <krait/status.h>

namespace krait {

/// `pattern` said in PCRE2's dialect. The two give \s, \w, \h, \b, (?m) and x{1,3}+ different
/// meanings; what has no equivalent is refused as unsupported.
Result<std::string> to_pcre2(std::string_view pattern);

/// A compiled expression. Immutable, shared by its copies and between threads.
class Regex {
 public:
  static Result<Regex> compile(std::string_view pattern);

 private:
  friend class RegexSearch;
  explicit Regex(std::shared_ptr<pcre2_code> code) : code_(std::move(code)) {}

  std::shared_ptr<pcre2_code> code_;
};

/// Finds the matches of an expression from left to right; they do not overlap, and an empty one
/// does not follow another directly. One per thread; good for many texts.
class RegexSearch {
 public:
  explicit RegexSearch(const Regex& regex);

  /// Begins with a new text, which must be UTF-8 and outlive the search.
  void start(std::string_view text);

  /// The next match; none after the last; an error when matching costs too much.
  Result<std::optional<Span>> next();

 private:
  struct Free {
    void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
    void operator()(pcre2_match_context* context) const { pcre2_match_context_free(context); }
  };

  std::shared_ptr<pcre2_code> code_;
  std::unique_ptr<pcre2_match_data, Free> data_;
  std::unique_ptr<pcre2_match_context, Free> context_;
  std::string_view text_;
  std::size_t at_ = 0;
  std::optional<std::size_t> last_end_;
};

}  // namespace krait
