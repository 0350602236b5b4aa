// GPT-2's alphabet: every byte has a printable character, so that a vocabulary of text can hold any
// bytes. Printable bytes of Latin-1 stand for themselves, the others follow from U+0100.
#pragma once

#include <array>
#include <cstdint>

namespace krait {

constexpr std::array<char32_t, 256> kByteToChar = [] {
  std::array<char32_t, 256> chars{};
  char32_t next = 0x100;
  for (char32_t byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte != 0xAD);
    chars[byte] = printable ? byte : next++;
  }
  return chars;
}();

/// The byte of each character below kByteChars; -1 for the others.
constexpr char32_t kByteChars = 0x100 + 68;
constexpr std::array<std::int16_t, kByteChars> kCharToByte = [] {
  std::array<std::int16_t, kByteChars> bytes{};
  for (auto& byte : bytes) byte = -1;
  for (std::int16_t byte = 0; byte < 256; ++byte) {
    bytes[kByteToChar[static_cast<std::size_t>(byte)]] = byte;
  }
  return bytes;
}();

}  // namespace krait
