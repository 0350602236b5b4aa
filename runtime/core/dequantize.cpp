#include <cstring>

#include "runtime/core/blocks.h"

namespace krait {
namespace {

std::uint8_t low_half(std::uint8_t byte) {
  return byte & 15;
}
std::uint8_t high_half(std::uint8_t byte) {
  return byte >> 4;
}
/// Bit i of `high`, as the fifth bit of a number.
std::uint8_t fifth_bit(const std::uint8_t (&high)[4], int i) {
  return static_cast<std::uint8_t>((high[i / 8] >> i % 8 & 1) << 4);
}

// The small integers of a block, in the order of its elements.

void take_codes(const BlockQ8_0& block, std::uint8_t* q) {
  for (int i = 0; i < 32; ++i) q[i] = static_cast<std::uint8_t>(block.q[i] + 128);
}

/// Types of 32 elements with four bits in `low`.
template <class Block>
void take_codes(const Block& block, std::uint8_t* q) {
  for (int i = 0; i < 16; ++i) {
    q[i] = low_half(block.low[i]);
    q[i + 16] = high_half(block.low[i]);
  }
  if constexpr (requires { block.high; }) {
    for (int i = 0; i < 32; ++i) q[i] |= fifth_bit(block.high, i);
  }
}

void take_codes(const BlockQ4_K& block, std::uint8_t* q) {
  for (int i = 0; i < 256; ++i) {
    const std::uint8_t byte = block.low[i / 64 * 32 + i % 32];
    q[i] = i / 32 % 2 ? high_half(byte) : low_half(byte);
  }
}

void take_codes(const BlockQ5_K& block, std::uint8_t* q) {
  for (int i = 0; i < 256; ++i) {
    const std::uint8_t byte = block.low[i / 64 * 32 + i % 32];
    const int fifth = block.high[i % 32] >> i / 32 & 1;
    q[i] = static_cast<std::uint8_t>((i / 32 % 2 ? high_half(byte) : low_half(byte)) | fifth << 4);
  }
}

void take_codes(const BlockQ6_K& block, std::uint8_t* q) {
  for (int at = 0; at < 256; ++at) {
    const int half = at / 128, run = at / 32 % 4, i = at % 32;
    const std::uint8_t byte = block.low[64 * half + 32 * (run % 2) + i];
    const int top = block.high[32 * half + i] >> 2 * run & 3;
    q[at] = static_cast<std::uint8_t>((run < 2 ? low_half(byte) : high_half(byte)) | top << 4);
  }
}

// Their values.

/// d (q − offset)
template <class Block>
void scale_codes(const Block& block, int offset, const std::uint8_t* q, float* y) {
  const float d = to_float(block.d);
  for (int i = 0; i < Block::kElements; ++i) y[i] = d * static_cast<float>(q[i] - offset);
}

void to_values(const BlockQ8_0& block, const std::uint8_t* q, float* y) {
  scale_codes(block, 128, q, y);
}
void to_values(const BlockQ4_0& block, const std::uint8_t* q, float* y) {
  scale_codes(block, 8, q, y);
}
void to_values(const BlockQ5_0& block, const std::uint8_t* q, float* y) {
  scale_codes(block, 16, q, y);
}

/// d q + m, or d s q − dmin m.
template <class Block>
void to_values(const Block& block, const std::uint8_t* q, float* y) {
  const float d = to_float(block.d);
  if constexpr (requires { block.dmin; }) {
    const float dmin = to_float(block.dmin);
    for (int i = 0; i < Block::kElements; ++i) {
      const auto [s, m] = group_scale(block.scales, i / 32);
      y[i] = d * static_cast<float>(s) * static_cast<float>(q[i]) - dmin * static_cast<float>(m);
    }
  } else {
    const float m = to_float(block.m);
    for (int i = 0; i < Block::kElements; ++i) y[i] = d * static_cast<float>(q[i]) + m;
  }
}

void to_values(const BlockQ6_K& block, const std::uint8_t* q, float* y) {
  const float d = to_float(block.d);
  for (int i = 0; i < 256; ++i) {
    const int part = i / 16;
    y[i] = d * static_cast<float>(block.scales[part]) * static_cast<float>(q[i] - 32);
  }
}

template <class Block>
void take_codes_at(const std::byte* from, std::uint8_t* q) {
  Block block;
  std::memcpy(&block, from, sizeof block);
  take_codes(block, q);
}

template <class Block>
void unpack_all(const std::byte* from, std::span<float> values) {
  std::uint8_t q[Block::kElements];
  for (std::size_t at = 0; at < values.size(); at += Block::kElements, from += sizeof(Block)) {
    Block block;
    std::memcpy(&block, from, sizeof block);
    take_codes(block, q);
    to_values(block, q, values.data() + at);
  }
}

}  // namespace

void dequantize(DType type, const std::byte* blocks, std::span<float> values) {
  switch (type) {
    case DType::q8_0:
      return unpack_all<BlockQ8_0>(blocks, values);
    case DType::q4_0:
      return unpack_all<BlockQ4_0>(blocks, values);
    case DType::q4_1:
      return unpack_all<BlockQ4_1>(blocks, values);
    case DType::q5_0:
      return unpack_all<BlockQ5_0>(blocks, values);
    case DType::q5_1:
      return unpack_all<BlockQ5_1>(blocks, values);
    case DType::q4_k:
      return unpack_all<BlockQ4_K>(blocks, values);
    case DType::q5_k:
      return unpack_all<BlockQ5_K>(blocks, values);
    case DType::q6_k:
      return unpack_all<BlockQ6_K>(blocks, values);
    default:
      return;
  }
}

void block_codes(DType type, const std::byte* block, std::uint8_t* codes) {
  switch (type) {
    case DType::q8_0:
      return take_codes_at<BlockQ8_0>(block, codes);
    case DType::q4_0:
      return take_codes_at<BlockQ4_0>(block, codes);
    case DType::q4_1:
      return take_codes_at<BlockQ4_1>(block, codes);
    case DType::q5_0:
      return take_codes_at<BlockQ5_0>(block, codes);
    case DType::q5_1:
      return take_codes_at<BlockQ5_1>(block, codes);
    case DType::q4_k:
      return take_codes_at<BlockQ4_K>(block, codes);
    case DType::q5_k:
      return take_codes_at<BlockQ5_K>(block, codes);
    case DType::q6_k:
      return take_codes_at<BlockQ6_K>(block, codes);
    default:
      return;
  }
}

}  // namespace krait
