// CRC-32 as zlib computes it, for goldens that hold checksums.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace krait::test {

inline std::uint32_t crc32(std::span<const std::byte> bytes) {
  std::uint32_t crc = 0xffffffffu;
  for (const std::byte byte : bytes) {
    crc ^= static_cast<std::uint32_t>(byte);
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0u);
  }
  return ~crc;
}

}  // namespace krait::test
