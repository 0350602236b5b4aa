#include "runtime/text/unicode.h"

#include <algorithm>
#include <cstdint>
#include <utf8proc.h>
#include <vector>

namespace krait {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

bool is_continuation(unsigned char byte) {
  return (byte & 0xC0) == 0x80;
}

/// Whether `byte` may follow the lead byte directly: this is where UTF-8 excludes overlong forms,
/// surrogates and what lies beyond U+10FFFF.
bool may_be_second(unsigned char lead, unsigned char byte) {
  switch (lead) {
    case 0xE0:
      return byte >= 0xA0 && byte <= 0xBF;
    case 0xED:
      return byte >= 0x80 && byte <= 0x9F;
    case 0xF0:
      return byte >= 0x90 && byte <= 0xBF;
    case 0xF4:
      return byte >= 0x80 && byte <= 0x8F;
    default:
      return is_continuation(byte);
  }
}

utf8proc_category_t category(char32_t c) {
  return utf8proc_category(static_cast<utf8proc_int32_t>(c));
}

/// Appends `text` in `form`, without short cuts.
void append_normalized(std::string& out, std::string_view text, NormalForm form) {
  const bool compatible = form == NormalForm::nfkc || form == NormalForm::nfkd;
  const bool compose = form == NormalForm::nfc || form == NormalForm::nfkc;
  int options = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE;
  if (compatible) options |= UTF8PROC_COMPAT;

  std::vector<utf8proc_int32_t> chars;
  chars.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) {
    std::array<utf8proc_int32_t, 32> parts;  // Unicode's longest decomposition has 18
    const auto c = static_cast<utf8proc_int32_t>(next_char(text, at));
    const auto count =
        utf8proc_decompose_char(c, parts.data(), static_cast<utf8proc_ssize_t>(parts.size()),
                                static_cast<utf8proc_option_t>(options), nullptr);
    if (count < 1 || count > static_cast<utf8proc_ssize_t>(parts.size())) {
      chars.push_back(c);
    } else {
      chars.insert(chars.end(), parts.begin(), parts.begin() + count);
    }
  }

  // Combining marks come in the order of their classes. utf8proc would do this by swapping
  // neighbours, which takes for ever on a long enough row of marks.
  const auto combining_class = [](utf8proc_int32_t c) {
    return utf8proc_get_property(c)->combining_class;
  };
  for (auto mark = chars.begin(); mark != chars.end();) {
    if (combining_class(*mark) == 0) {
      ++mark;
      continue;
    }
    const auto end = std::find_if(mark, chars.end(),
                                  [&](utf8proc_int32_t c) { return combining_class(c) == 0; });
    std::stable_sort(mark, end, [&](utf8proc_int32_t a, utf8proc_int32_t b) {
      return combining_class(a) < combining_class(b);
    });
    mark = end;
  }

  auto length = static_cast<utf8proc_ssize_t>(chars.size());
  if (compose) {
    length = utf8proc_normalize_utf32(
        chars.data(), length, static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  }
  for (utf8proc_ssize_t i = 0; i < length; ++i) {
    append_char(out, static_cast<char32_t>(chars[static_cast<std::size_t>(i)]));
  }
}

}  // namespace

std::size_t char_length(unsigned char lead) {
  if (lead < 0x80) return 1;
  if (lead < 0xC2) return 0;
  if (lead < 0xE0) return 2;
  if (lead < 0xF0) return 3;
  return lead < 0xF5 ? 4 : 0;
}

std::size_t find_invalid_utf8(std::string_view text) {
  for (std::size_t at = 0; at < text.size();) {
    const auto lead = static_cast<unsigned char>(text[at]);
    const std::size_t length = char_length(lead);
    if (length == 0 || length > text.size() - at) return at;
    for (std::size_t i = 1; i < length; ++i) {
      const auto byte = static_cast<unsigned char>(text[at + i]);
      if (!(i == 1 ? may_be_second(lead, byte) : is_continuation(byte))) return at;
    }
    at += length;
  }
  return text.size();
}

char32_t next_char(std::string_view text, std::size_t& at) {
  const auto byte = [&](std::size_t i) {
    return static_cast<char32_t>(static_cast<unsigned char>(text[at + i]));
  };
  const char32_t lead = byte(0);
  char32_t c = lead;
  std::size_t length = 1;
  if (lead >= 0xF0) {
    c = (lead & 0x07) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 | (byte(3) & 0x3F);
    length = 4;
  } else if (lead >= 0xE0) {
    c = (lead & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F);
    length = 3;
  } else if (lead >= 0x80) {
    c = (lead & 0x1F) << 6 | (byte(1) & 0x3F);
    length = 2;
  }
  at += length;
  return c;
}

std::size_t last_char(std::string_view text) {
  std::size_t at = text.size() - 1;
  while (at > 0 && is_continuation(static_cast<unsigned char>(text[at]))) --at;
  return at;
}

void append_char(std::string& out, char32_t c) {
  const auto put = [&](char32_t byte) { out.push_back(static_cast<char>(byte)); };
  if (c < 0x80) {
    put(c);
  } else if (c < 0x800) {
    put(0xC0 | c >> 6);
    put(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    put(0xE0 | c >> 12);
    put(0x80 | (c >> 6 & 0x3F));
    put(0x80 | (c & 0x3F));
  } else {
    put(0xF0 | c >> 18);
    put(0x80 | (c >> 12 & 0x3F));
    put(0x80 | (c >> 6 & 0x3F));
    put(0x80 | (c & 0x3F));
  }
}

bool is_numeric(char32_t c) {
  if (c < 0x80) return c >= '0' && c <= '9';
  const auto kind = category(c);
  return kind >= UTF8PROC_CATEGORY_ND && kind <= UTF8PROC_CATEGORY_NO;
}

bool is_punctuation(char32_t c) {
  if (c < 0x80) {
    return (c >= '!' && c <= '/') || (c >= ':' && c <= '@') || (c >= '[' && c <= '`') ||
           (c >= '{' && c <= '~');
  }
  const auto kind = category(c);
  return kind >= UTF8PROC_CATEGORY_PC && kind <= UTF8PROC_CATEGORY_PO;
}

bool is_whitespace(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

bool is_word(char32_t c) {
  switch (category(c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
      return true;
    default:  // joiners, and the symbols that count as letters: circled and squared ones
      return c == 0x200C || c == 0x200D || (c >= 0x24B6 && c <= 0x24E9) ||
             (c >= 0x1F130 && c <= 0x1F149) || (c >= 0x1F150 && c <= 0x1F169) ||
             (c >= 0x1F170 && c <= 0x1F189);
  }
}

std::string normalize(std::string_view text, NormalForm form) {
  // Characters below a limit stay as they are and never join the one before them; nearly all text
  // is of these. They are told by their first byte: 0xCC begins U+0300, the first combining mark.
  const unsigned char limit = form == NormalForm::nfc ? 0xCC : 0x80;
  const auto inert = [&](char byte) { return static_cast<unsigned char>(byte) < limit; };

  std::string out;
  out.reserve(text.size());
  for (std::size_t done = 0; done < text.size();) {
    const auto changing = std::find_if_not(text.begin() + done, text.end(), inert);
    std::size_t end = static_cast<std::size_t>(changing - text.begin());
    // A mark may join the character before it: that one belongs to the part that changes.
    const std::string_view before = text.substr(done, end - done);
    const std::size_t begin = end == text.size() || before.empty() ? end : done + last_char(before);
    out.append(text, done, begin - done);
    while (end < text.size() && !inert(text[end])) {
      end += char_length(static_cast<unsigned char>(text[end]));
    }
    append_normalized(out, text.substr(begin, end - begin), form);
    done = end;
  }
  return out;
}

std::string lowercase(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) {
    const char32_t c = next_char(text, at);
    if (c == 0x130) {  // the only character whose lower case has two: i and a dot above
      out += "i\xCC\x87";
    } else {
      append_char(out, static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))));
    }
  }
  return out;
}

std::string excerpt(std::string_view text) {
  constexpr std::size_t kLongest = 60;
  constexpr std::string_view kHex = "0123456789ABCDEF";
  std::string out = "\"";
  for (const char c : text.substr(0, kLongest)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte >= 0x7F) {
      out += "\\x";
      out += kHex[byte >> 4];
      out += kHex[byte & 15];
    } else {
      if (c == '"' || c == '\\') out += '\\';
      out += c;
    }
  }
  out += text.size() > kLongest ? "...\"" : "\"";
  return out;
}

void Utf8Assembler::push(unsigned char byte, std::string& out) {
  if (size_ > 0) {
    const auto lead = static_cast<unsigned char>(pending_[0]);
    if (size_ == 1 ? may_be_second(lead, byte) : is_continuation(byte)) {
      pending_[size_++] = static_cast<char>(byte);
      if (size_ == char_length(lead)) {
        out.append(pending_.data(), size_);
        size_ = 0;
      }
      return;
    }
    flush(out);
  }
  switch (char_length(byte)) {
    case 0:
      out += kReplacement;
      break;
    case 1:
      out += static_cast<char>(byte);
      break;
    default:
      pending_[size_++] = static_cast<char>(byte);
  }
}

void Utf8Assembler::flush(std::string& out) {
  if (size_ == 0) return;
  const std::size_t count = lossy_ == Lossy::per_byte ? size_ : 1;
  for (std::size_t i = 0; i < count; ++i) out += kReplacement;
  size_ = 0;
}

}  // namespace krait
