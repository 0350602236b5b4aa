#include "runtime/core/json.h"

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <limits>
#include <string>
#include <vector>

#include "runtime/core/try.h"

namespace krait {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

/// A number that JSON has no spelling for, found at `offset` of the text.
struct PythonNumber {
  std::size_t offset;
  double value;
};

bool continues_word(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
         c == '.' || c == '+' || c == '-';
}

/// Finds Infinity, -Infinity and NaN outside strings, and writes 0 and blanks over them, so that
/// the rest of `text` stays where it is and the parser sees plain JSON.
std::vector<PythonNumber> take_python_numbers(std::string& text) {
  constexpr struct {
    std::string_view word;
    double value;
  } kWords[] = {{"Infinity", kInfinity}, {"-Infinity", -kInfinity}, {"NaN", kNaN}};
  std::vector<PythonNumber> found;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '"') {
      for (++i; i < text.size() && text[i] != '"'; ++i) {
        if (text[i] == '\\') ++i;
      }
      continue;
    }
    if (i > 0 && continues_word(text[i - 1])) continue;
    for (const auto& [word, value] : kWords) {
      if (text.compare(i, word.size(), word) != 0) continue;
      const std::size_t end = i + word.size();
      if (end < text.size() && continues_word(text[end])) continue;
      std::fill(text.begin() + static_cast<std::ptrdiff_t>(i),
                text.begin() + static_cast<std::ptrdiff_t>(end), ' ');
      text[i] = '0';
      found.push_back({i, value});
    }
  }
  return found;
}

/// An iterator that tells how far the parser has read.
class Cursor {
 public:
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  Cursor(const char* at, const char** seen) : at_(at), seen_(seen) {}
  reference operator*() const { return *at_; }
  Cursor& operator++() {
    *seen_ = ++at_;
    return *this;
  }
  Cursor operator++(int) {
    Cursor before = *this;
    ++*this;
    return before;
  }
  friend bool operator==(const Cursor& a, const Cursor& b) { return a.at_ == b.at_; }

 private:
  const char* at_;
  const char** seen_;
};

/// Builds the value from the parser's events, which arrive without recursion: so hostile depth
/// meets our limit, not the end of the stack.
class Builder {
 public:
  Builder(std::string_view text, std::string_view what, const std::vector<PythonNumber>& numbers)
      : begin_(text.data()), what_(what), seen_(text.data()), numbers_(numbers) {}

  const char** seen() { return &seen_; }
  Json take() { return std::move(root_); }
  Status status() const { return status_; }

  // The events, named by the parser; `false` stops it.
  bool null() { return add(nullptr); }
  bool boolean(bool value) { return add(value); }
  bool number_integer(Json::number_integer_t value) { return add_number(value); }
  bool number_unsigned(Json::number_unsigned_t value) { return add_number(value); }
  bool number_float(Json::number_float_t value, const std::string&) { return add_number(value); }
  bool string(std::string& value) { return add(std::move(value)); }
  bool binary(Json::binary_t&) { return fail("unexpected binary value"); }
  bool start_object(std::size_t) { return open(Json::object()); }
  bool start_array(std::size_t) { return open(Json::array()); }
  bool end_object() { return close(); }
  bool end_array() { return close(); }
  bool key(std::string& name) {
    auto [place, inserted] = parents_.back()->emplace(name, nullptr);
    if (!inserted) return fail(cat("the key ", shown(name), " occurs twice in one object"));
    member_ = &*place;
    return true;
  }
  bool parse_error(std::size_t, const std::string&, const Json::exception& error) {
    // The library's message ends in the text it last read, as long as the file makes it: drop it.
    std::string reason = error.what();
    if (const auto begin = reason.find("] "); begin != std::string_view::npos)
      reason.erase(0, begin + 2);
    if (const auto begin = reason.find("syntax error"); begin != std::string_view::npos)
      reason.erase(0, begin);
    reason = reason.substr(0, reason.find("; last read"));
    constexpr std::size_t kLongest = 160;
    if (reason.size() > kLongest) reason.resize(kLongest);
    return fail(reason);
  }

 private:
  bool fail(const std::string& reason) {
    status_ = corrupt(what_, ": byte ", seen_ - begin_, ": ", reason);
    return false;
  }
  Json* place(Json value) {
    if (parents_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    if (parents_.back()->is_array()) {
      parents_.back()->push_back(std::move(value));
      return &parents_.back()->back();
    }
    *member_ = std::move(value);
    return member_;
  }
  bool add(Json value) {
    place(std::move(value));
    return true;
  }
  bool add_number(Json value) {
    // The parser stands behind the number it reports and before everything that follows.
    const auto read = static_cast<std::size_t>(seen_ - begin_);
    if (next_ < numbers_.size() && read > numbers_[next_].offset) value = numbers_[next_++].value;
    return add(std::move(value));
  }
  bool open(Json container) {
    if (parents_.size() == kMaxJsonDepth)
      return fail(cat("nested deeper than ", kMaxJsonDepth, " levels"));
    parents_.push_back(place(std::move(container)));
    return true;
  }
  bool close() {
    parents_.pop_back();
    return true;
  }

  const char* begin_;
  std::string_view what_;
  const char* seen_;  // how far the parser has read; the Cursor moves it
  const std::vector<PythonNumber>& numbers_;
  std::size_t next_ = 0;
  Json root_;
  Json* member_ = nullptr;      // the member that `key` announced
  std::vector<Json*> parents_;  // the open containers, outermost first
  Status status_;
};

}  // namespace

Result<Json> parse_json(std::string_view text, std::string_view what) {
  return guarded([&]() -> Result<Json> {
    // The parser takes a zero byte for the end of the text and would ignore what follows it.
    if (const auto zero = text.find('\0'); zero != std::string_view::npos)
      return corrupt(what, ": byte ", zero + 1, ": a zero byte, which JSON does not allow");
    std::string copy;
    std::vector<PythonNumber> numbers;
    if (text.find("Infinity") != std::string_view::npos ||
        text.find("NaN") != std::string_view::npos) {
      copy = text;
      numbers = take_python_numbers(copy);
      text = copy;
    }
    Builder builder(text, what, numbers);
    const Cursor begin(text.data(), builder.seen());
    const Cursor end(text.data() + text.size(), builder.seen());
    if (!Json::sax_parse(begin, end, &builder)) return builder.status();
    return builder.take();
  });
}

std::optional<double> number(const Json& value) {
  if (value.is_number()) return value.get<double>();
  if (!value.is_object() || value.size() != 1) return std::nullopt;
  const auto word = value.find("__float__");
  if (word == value.end()) return std::nullopt;
  if (*word == "Infinity") return kInfinity;
  if (*word == "-Infinity") return -kInfinity;
  if (*word == "NaN") return kNaN;
  return std::nullopt;
}

std::optional<std::int64_t> whole_number(const Json& value) {
  if (!value.is_number_integer()) return std::nullopt;
  if (value.is_number_unsigned() &&
      value.get<std::uint64_t>() > std::uint64_t{std::numeric_limits<std::int64_t>::max()})
    return std::nullopt;
  return value.get<std::int64_t>();
}

std::string shown(std::string_view text) {
  constexpr std::size_t kLongest = 80;
  const bool whole = text.size() <= kLongest;
  // Replaces what is not UTF-8, such as a character cut in two.
  const std::string escaped = Json(std::string(text.substr(0, kLongest)))
                                  .dump(-1, ' ', true, Json::error_handler_t::replace);
  return whole ? escaped : escaped + "...";
}

}  // namespace krait
