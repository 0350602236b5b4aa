// Oniguruma's regular expressions (Ruby syntax, UTF-8), said in PCRE2's dialect.
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/core/try.h"
#include "runtime/text/regex.h"
#include "runtime/text/unicode.h"

namespace krait {
namespace {

// The members of \w and \h, as they stand inside brackets. Outside of them Oniguruma's \w also
// holds the superscripts and fractions of Latin-1.
constexpr std::string_view kWord = "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}";
constexpr std::string_view kWordOutside =
    "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{B2}\\x{B3}\\x{B9}\\x{BC}-\\x{BE}";
constexpr std::string_view kHex = "0-9A-Fa-f";

/// The members of [:name:]; PCRE2's own know fewer letters and signs.
std::string_view posix_members(std::string_view name) {
  if (name == "alpha") return "\\p{Alphabetic}";
  if (name == "digit") return "\\p{Nd}";
  if (name == "alnum") return "\\p{Alphabetic}\\p{Nd}";
  if (name == "upper") return "\\p{Uppercase}";
  if (name == "lower") return "\\p{Lowercase}";
  if (name == "punct") return "\\p{P}\\p{S}";
  if (name == "space") return "\\p{White_Space}";
  if (name == "xdigit") return kHex;
  if (name == "word") return kWord;
  return {};
}

/// Whether `name` is a script. To PCRE2, \p{Han} holds what is used with Han, such as U+3002; only
/// \p{sc:Han} is Han itself.
bool is_script(std::string_view name) {
  const std::string pattern = cat("\\p{sc:", name, "}");
  int error = 0;
  std::size_t offset = 0;
  pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                                   PCRE2_UTF, &error, &offset, nullptr);
  pcre2_code_free(code);
  return code != nullptr;
}

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}
bool is_letter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

class Translator {
 public:
  explicit Translator(std::string_view pattern) : pattern_(pattern) {}

  Result<std::string> run() {
    while (at_ < pattern_.size()) {
      const char c = pattern_[at_];
      switch (c) {
        case '\\':
          begin_atom();
          KRAIT_TRY(escape(false));
          break;
        case '[':
          begin_atom();
          KRAIT_TRY(bracket());
          break;
        case '(':
          groups_.push_back(out_.size());
          KRAIT_TRY(open_group());
          break;
        case ')':
          // An unbalanced one is PCRE2's to report.
          atom_ = groups_.empty() ? kNoAtom : groups_.back();
          if (!groups_.empty()) groups_.pop_back();
          copy(1);
          break;
        case '{':
          KRAIT_TRY(interval());
          break;
        case '*':
        case '+':
        case '?':
          copy(1);
          break;
        case '^':
        case '$':
        case '|':
          atom_ = kNoAtom;
          copy(1);
          break;
        default:
          begin_atom();
          copy(char_length(static_cast<unsigned char>(c)));
      }
    }
    return std::move(out_);
  }

 private:
  static constexpr std::size_t kNoAtom = static_cast<std::size_t>(-1);

  Status refuse(std::string_view what) const {
    return unsupported("[tokenizer] regular expression ", excerpt(pattern_), ": ", what, " (byte ",
                       at_, ") is not supported");
  }
  char peek(std::size_t ahead = 0) const {
    return at_ + ahead < pattern_.size() ? pattern_[at_ + ahead] : '\0';
  }
  bool starts(std::string_view text) const { return pattern_.substr(at_).starts_with(text); }
  void begin_atom() { atom_ = out_.size(); }
  void copy(std::size_t count) {
    out_.append(pattern_.substr(at_, count));
    at_ += count;
  }
  /// Copies up to and with `end`, or all the rest.
  void copy_through(std::string_view end) {
    const std::size_t found = pattern_.find(end, at_);
    copy(found == std::string_view::npos ? pattern_.size() - at_ : found + end.size() - at_);
  }

  /// At a backslash.
  Status escape(bool in_bracket) {
    const auto emit = [&](std::string_view text) {
      out_ += text;
      at_ += 2;
      return Status();
    };
    const auto emit_set = [&](std::string_view members, bool negated) -> Status {
      if (in_bracket && negated) return refuse("a negated class inside brackets");
      return emit(in_bracket ? std::string(members) : cat(negated ? "[^" : "[", members, "]"));
    };
    const char c = peek(1);
    switch (c) {
      case '\0':
        return refuse("a backslash at the end");
      case 's':  // PCRE2's own \s holds U+180E, which is a space no longer
        return emit("\\p{White_Space}");
      case 'S':
        return emit("\\P{White_Space}");
      case 'w':
      case 'W':
        return emit_set(in_bracket ? kWord : kWordOutside, c == 'W');
      case 'h':
      case 'H':
        return emit_set(kHex, c == 'H');
      case 'v':
        return emit("\\x0b");
      case 'b': {
        if (in_bracket) return emit("\\b");
        atom_ = kNoAtom;
        const std::string word = cat("[", kWordOutside, "]");
        return emit(cat("(?:(?<=", word, ")(?!", word, ")|(?<!", word, ")(?=", word, "))"));
      }
      case 'u': {
        const std::string_view digits = pattern_.substr(at_).substr(2, 4);
        if (digits.size() < 4) return refuse("\\u without four digits");
        out_ += cat("\\x{", digits, "}");
        at_ += 6;
        return {};
      }
      case 'x':
        if (peek(2) == '{') {
          copy_through("}");
        } else if (peek(2) >= '0' && peek(2) <= '7') {  // beyond, it is a byte, not a character
          copy(4);
        } else {
          return refuse("\\x without a brace or two digits below 80");
        }
        return {};
      case 'p':
      case 'P':
        return property();
      default:
        break;
    }
    constexpr std::string_view kSame = "dDRXAzZntrfae";  // these mean the same in both
    if ((is_letter(c) && kSame.find(c) == std::string_view::npos))
      return refuse(cat("the escape \\", c));
    copy(1);
    copy(char_length(static_cast<unsigned char>(peek())));
    return {};
  }

  /// At \p or \P.
  Status property() {
    const std::size_t end = pattern_.find('}', at_);
    if (peek(2) != '{' || end == std::string_view::npos) {  // \pL
      copy(3);
      return {};
    }
    std::string_view name = pattern_.substr(at_ + 3, end - at_ - 3);
    const bool negated = name.starts_with('^');
    if (negated) name.remove_prefix(1);
    out_ += cat("\\", peek(1), "{", negated ? "^" : "", is_script(name) ? "sc:" : "", name, "}");
    at_ = end + 1;
    return {};
  }

  /// At the [ of a class.
  Status bracket() {
    copy(1);
    if (peek() == '^') copy(1);
    if (peek() == ']') {  // in this place it stands for itself
      out_ += '\\';
      copy(1);
    }
    while (at_ < pattern_.size() && peek() != ']') {
      if (peek() == '\\') {
        KRAIT_TRY(escape(true));
      } else if (starts("[:")) {
        const std::size_t end = pattern_.find(":]", at_);
        const auto name =
            end == std::string_view::npos ? "" : pattern_.substr(at_ + 2, end - at_ - 2);
        const std::string_view members = posix_members(name);
        if (members.empty()) return refuse("this class in brackets");
        out_ += members;
        at_ = end + 2;
      } else if (peek() == '[') {
        return refuse("a bracket inside brackets");
      } else if (starts("&&")) {
        return refuse("an intersection of classes");
      } else {
        copy(1);
      }
    }
    copy(1);
    return {};
  }

  /// At a parenthesis that opens.
  Status open_group() {
    atom_ = kNoAtom;
    if (starts("(*") || starts("(?#") || starts("(?P") || starts("(?R") || starts("(?C")) {
      return refuse("this kind of group");
    }
    copy(1);
    if (peek() != '?') return {};
    copy(1);
    // (?i) and (?m-i:...): here m lets the dot match \n, which PCRE2 calls s.
    if (!is_letter(peek()) && peek() != '-') return {};
    while (is_letter(peek()) || peek() == '-') {
      const char flag = peek();
      if (flag != 'i' && flag != 'm' && flag != '-') return refuse("this option");
      out_ += flag == 'm' ? 's' : flag;
      ++at_;
    }
    if (peek() != ')' && peek() != ':') return refuse("this kind of group");
    if (peek() == ':') copy(1);
    return {};
  }

  /// At a brace: {n}, {n,}, {n,m} or {,m} repeats the last atom; anything else is text.
  Status interval() {
    std::size_t end = at_ + 1;
    const auto digits = [&] {
      const std::size_t first = end;
      while (end < pattern_.size() && is_digit(pattern_[end])) ++end;
      return pattern_.substr(first, end - first);
    };
    const std::string_view low = digits();
    const bool comma = end < pattern_.size() && pattern_[end] == ',';
    if (comma) ++end;
    const std::string_view high = comma ? digits() : std::string_view();
    const bool closed = end < pattern_.size() && pattern_[end] == '}';
    if (!closed || (low.empty() && high.empty())) {
      begin_atom();
      out_ += "\\{";
      ++at_;
      return {};
    }
    if (atom_ == kNoAtom) return refuse("a repetition of nothing");
    at_ = end + 1;
    // x{1,3}+ repeats the repetition, and so does x{3}?: in PCRE2 these say possessive and lazy.
    const bool again = peek() == '+' || (peek() == '?' && !comma);
    if (again) out_.insert(atom_, "(?:");
    out_ += cat("{", low.empty() ? "0" : low, comma ? "," : "", high, "}", again ? ")" : "");
    return {};
  }

  std::string_view pattern_;
  std::size_t at_ = 0;
  std::string out_;
  std::size_t atom_ = kNoAtom;       // where in out_ the thing that a quantifier repeats begins
  std::vector<std::size_t> groups_;  // where in out_ the open groups begin
};

}  // namespace

Result<std::string> to_pcre2(std::string_view pattern) {
  if (const std::size_t bad = find_invalid_utf8(pattern); bad != pattern.size()) {
    return corrupt("[tokenizer] regular expression ", excerpt(pattern), ": byte ", bad,
                   " is not UTF-8");
  }
  return Translator(pattern).run();
}

}  // namespace krait
