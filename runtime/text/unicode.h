// UTF-8, character classes and normal forms: what the tokenizer's parts know about characters.
#pragma once

#include <array>
#include <cstddef>
#include <string>
#include <string_view>

namespace krait {

/// A range of bytes of a text.
struct Span {
  std::size_t begin = 0;
  std::size_t end = 0;
};

/// The offset of the first byte that is not part of a UTF-8 character; text.size() if all are.
std::size_t find_invalid_utf8(std::string_view text);

/// Reads the character at text[at] and moves `at` behind it. `text` must be UTF-8, at < size.
char32_t next_char(std::string_view text, std::size_t& at);

/// The number of bytes of the character that begins with `lead`; 0 if none does.
std::size_t char_length(unsigned char lead);

/// Where the last character of `text` begins. `text` must be UTF-8 and not empty.
std::size_t last_char(std::string_view text);

void append_char(std::string& out, char32_t c);

bool is_numeric(char32_t c);      ///< general category N
bool is_punctuation(char32_t c);  ///< general category P, and the ASCII symbols
bool is_whitespace(char32_t c);   ///< Unicode's White_Space
bool is_word(char32_t c);         ///< what a regular expression's \w means to Unicode

enum class NormalForm { nfc, nfd, nfkc, nfkd };

/// `text`, which must be UTF-8, in a Unicode normal form. Linear in its length.
std::string normalize(std::string_view text, NormalForm form);

/// Every character in lower case, each by itself (a final sigma is not special).
std::string lowercase(std::string_view text);

/// `text` as a message shows it: quoted, printable ASCII, not longer than a line.
std::string excerpt(std::string_view text);

/// Builds characters from bytes that arrive one at a time, and U+FFFD from bytes that make none.
class Utf8Assembler {
 public:
  /// What a broken sequence becomes: one U+FFFD, or one for each of its bytes.
  enum class Lossy { per_sequence, per_byte };

  explicit Utf8Assembler(Lossy lossy) : lossy_(lossy) {}

  /// Appends to `out` what is now complete.
  void push(unsigned char byte, std::string& out);
  /// Appends U+FFFD for a character that was begun and not finished.
  void flush(std::string& out);

 private:
  Lossy lossy_;
  std::array<char, 4> pending_{};
  std::size_t size_ = 0;
};

}  // namespace krait
