#include <cstring>

#include "runtime/core/blocks.h"

namespace krait {
namespace {

int low_half(std::uint8_t byte) {
  return byte & 15;
}
int high_half(std::uint8_t byte) {
  return byte >> 4;
}
/// Bit i of `high`, as the fifth bit of a number.
int fifth_bit(const std::uint8_t (&high)[4], int i) {
  return (high[i / 8] >> i % 8 & 1) << 4;
}

void unpack(const BlockQ8_0& block, float* y) {
  const float d = to_float(block.d);
  for (int i = 0; i < 32; ++i) y[i] = d * static_cast<float>(block.q[i]);
}

void unpack(const BlockQ4_0& block, float* y) {
  const float d = to_float(block.d);
  for (int i = 0; i < 16; ++i) {
    y[i] = d * static_cast<float>(low_half(block.low[i]) - 8);
    y[i + 16] = d * static_cast<float>(high_half(block.low[i]) - 8);
  }
}

void unpack(const BlockQ4_1& block, float* y) {
  const float d = to_float(block.d), m = to_float(block.m);
  for (int i = 0; i < 16; ++i) {
    y[i] = d * static_cast<float>(low_half(block.low[i])) + m;
    y[i + 16] = d * static_cast<float>(high_half(block.low[i])) + m;
  }
}

void unpack(const BlockQ5_0& block, float* y) {
  const float d = to_float(block.d);
  for (int i = 0; i < 16; ++i) {
    const int first = low_half(block.low[i]) | fifth_bit(block.high, i);
    const int second = high_half(block.low[i]) | fifth_bit(block.high, i + 16);
    y[i] = d * static_cast<float>(first - 16);
    y[i + 16] = d * static_cast<float>(second - 16);
  }
}

void unpack(const BlockQ5_1& block, float* y) {
  const float d = to_float(block.d), m = to_float(block.m);
  for (int i = 0; i < 16; ++i) {
    const int first = low_half(block.low[i]) | fifth_bit(block.high, i);
    const int second = high_half(block.low[i]) | fifth_bit(block.high, i + 16);
    y[i] = d * static_cast<float>(first) + m;
    y[i + 16] = d * static_cast<float>(second) + m;
  }
}

void unpack(const BlockQ4_K& block, float* y) {
  const float d = to_float(block.d), dmin = to_float(block.dmin);
  for (int g = 0; g < 8; ++g) {
    const auto [s, m] = group_scale(block.scales, g);
    const float scale = d * static_cast<float>(s), minimum = dmin * static_cast<float>(m);
    const std::uint8_t* low = block.low + g / 2 * 32;
    for (int i = 0; i < 32; ++i) {
      const int q = g % 2 ? high_half(low[i]) : low_half(low[i]);
      y[32 * g + i] = scale * static_cast<float>(q) - minimum;
    }
  }
}

void unpack(const BlockQ5_K& block, float* y) {
  const float d = to_float(block.d), dmin = to_float(block.dmin);
  for (int g = 0; g < 8; ++g) {
    const auto [s, m] = group_scale(block.scales, g);
    const float scale = d * static_cast<float>(s), minimum = dmin * static_cast<float>(m);
    const std::uint8_t* low = block.low + g / 2 * 32;
    for (int i = 0; i < 32; ++i) {
      const int q = (g % 2 ? high_half(low[i]) : low_half(low[i])) | (block.high[i] >> g & 1) << 4;
      y[32 * g + i] = scale * static_cast<float>(q) - minimum;
    }
  }
}

void unpack(const BlockQ6_K& block, float* y) {
  const float d = to_float(block.d);
  for (int half = 0; half < 2; ++half) {
    const std::uint8_t* low = block.low + 64 * half;
    const std::uint8_t* high = block.high + 32 * half;
    for (int run = 0; run < 4; ++run) {
      for (int i = 0; i < 32; ++i) {
        const std::uint8_t byte = low[32 * (run % 2) + i];
        const int q = (run < 2 ? low_half(byte) : high_half(byte)) | (high[i] >> 2 * run & 3) << 4;
        const int at = 128 * half + 32 * run + i;
        y[at] = d * static_cast<float>(block.scales[at / 16]) * static_cast<float>(q - 32);
      }
    }
  }
}

template <class Block>
void unpack_all(const std::byte* from, std::span<float> values) {
  for (std::size_t at = 0; at < values.size(); at += Block::kElements, from += sizeof(Block)) {
    Block block;
    std::memcpy(&block, from, sizeof block);
    unpack(block, values.data() + at);
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

}  // namespace krait
