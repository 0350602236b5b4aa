#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>

#include "runtime/core/blocks.h"

namespace krait {
namespace {

constexpr float kLargestF16 = 65504;

float finite(float x) {
  return std::isnan(x) ? 0 : std::clamp(x, -kLargestF16, kLargestF16);
}
/// 0 for what is too small to have a finite inverse.
float inverse(float x) {
  return std::fabs(x) >= std::numeric_limits<float>::min() ? 1 / x : 0;
}
/// The nearest of 0 to `last`; halves go up.
int nearest_code(float x, int last) {
  return static_cast<int>(std::floor(std::clamp(x, 0.0f, static_cast<float>(last)) + 0.5f));
}

// ---- Blocks of 32 -------------------------------------------------------------------------------

struct Extremes {
  float low, high;
  float widest;  ///< the first value of the largest magnitude
};
Extremes extremes(const float* x, int count) {
  Extremes result{x[0], x[0], x[0]};
  for (int i = 1; i < count; ++i) {
    result.low = std::min(result.low, x[i]);
    result.high = std::max(result.high, x[i]);
    if (std::fabs(x[i]) > std::fabs(result.widest)) result.widest = x[i];
  }
  return result;
}

/// Element i of a block: four bits in a half of `low`, and the fifth in `high`.
void put_low(std::uint8_t (&low)[16], int i, int q) {
  low[i % 16] = static_cast<std::uint8_t>(low[i % 16] | (q & 15) << (i < 16 ? 0 : 4));
}
void put_high(std::uint8_t (&high)[4], int i, int q) {
  high[i / 8] = static_cast<std::uint8_t>(high[i / 8] | (q >> 4 & 1) << i % 8);
}

/// x ≈ d q with q in −127..127: d is a 127th of the largest magnitude.
void pack(const float* x, BlockQ8_0& block) {
  const float d = std::fabs(extremes(x, 32).widest) / 127;
  block.d = to_f16(d);
  for (int i = 0; i < 32; ++i) block.q[i] = static_cast<std::int8_t>(std::round(x[i] * inverse(d)));
}

/// x ≈ d (q − half) with q in 0..2 half − 1. The range has one number more below zero than above:
/// the widest value gets it, whatever its sign, so d may be negative.
template <class Block, class Put>
void pack_symmetric(const float* x, Block& block, int half, Put put) {
  const float d = extremes(x, 32).widest / static_cast<float>(-half);
  block.d = to_f16(d);
  for (int i = 0; i < 32; ++i)
    put(i, nearest_code(x[i] * inverse(d) + static_cast<float>(half), 2 * half - 1));
}
void pack(const float* x, BlockQ4_0& block) {
  pack_symmetric(x, block, 8, [&](int i, int q) { put_low(block.low, i, q); });
}
void pack(const float* x, BlockQ5_0& block) {
  pack_symmetric(x, block, 16, [&](int i, int q) {
    put_low(block.low, i, q);
    put_high(block.high, i, q);
  });
}

/// x ≈ d q + m with q in 0..last, between the smallest value and the largest.
template <class Block, class Put>
void pack_range(const float* x, Block& block, int last, Put put) {
  const auto [low, high, widest] = extremes(x, 32);
  const float d = (high - low) / static_cast<float>(last);
  block.d = to_f16(d);
  block.m = to_f16(low);
  for (int i = 0; i < 32; ++i) put(i, nearest_code((x[i] - low) * inverse(d), last));
}
void pack(const float* x, BlockQ4_1& block) {
  pack_range(x, block, 15, [&](int i, int q) { put_low(block.low, i, q); });
}
void pack(const float* x, BlockQ5_1& block) {
  pack_range(x, block, 31, [&](int i, int q) {
    put_low(block.low, i, q);
    put_high(block.high, i, q);
  });
}

// ---- Blocks of 256 ------------------------------------------------------------------------------
// Scales are searched for the least Σ w (x − value)². Large weights matter more, so w = rms + |x|.

void weigh(const float* x, int count, float* w) {
  float squares = 0;
  for (int i = 0; i < count; ++i) squares += x[i] * x[i];
  const float rms = std::sqrt(squares / static_cast<float>(count));
  for (int i = 0; i < count; ++i) w[i] = rms + std::fabs(x[i]);
}

/// s and m ≥ 0 of one group in x ≈ s q − m.
struct Line {
  float s = 0, m = 0;
};

float range_error(const float* x, const float* w, int count, int last, Line line) {
  const float to_code = inverse(line.s);
  float error = 0;
  for (int i = 0; i < count; ++i) {
    const int q = nearest_code((x[i] + line.m) * to_code, last);
    const float off = x[i] - (line.s * static_cast<float>(q) - line.m);
    error += w[i] * off * off;
  }
  return error;
}

/// A search over guesses: the whole range of the values, stretched or cut by up to one code. Each
/// gives codes, and those the line of weighted least squares through the points (q, x).
Line search_line(const float* x, const float* w, int count, int last) {
  float low = 0, high = x[0], sw = 0, swx = 0;
  for (int i = 0; i < count; ++i) {
    low = std::min(low, x[i]);
    high = std::max(high, x[i]);
    sw += w[i];
    swx += w[i] * x[i];
  }
  if (!(high > low)) return {0, -low};
  Line best{(high - low) / static_cast<float>(last), -low};
  float most = -std::numeric_limits<float>::infinity();
  constexpr int kSteps = 10;
  for (int step = -kSteps; step <= kSteps; ++step) {
    const float codes = static_cast<float>(last) + static_cast<float>(step) / kSteps;
    const float to_code = codes * inverse(high - low);
    float swq = 0, swqq = 0, swqx = 0;
    for (int i = 0; i < count; ++i) {
      const auto q = static_cast<float>(nearest_code((x[i] - low) * to_code, last));
      swq += w[i] * q;
      swqq += w[i] * q * q;
      swqx += w[i] * q * x[i];
    }
    const float determinant = sw * swqq - swq * swq;
    if (!(determinant > 0)) continue;
    Line line{(sw * swqx - swq * swx) / determinant, (swq * swqx - swqq * swx) / determinant};
    if (line.m < 0) line = {swqx / swqq, 0};  // m is stored without a sign
    // Σ w (x − s q + m)² = Σ w x² − gain, where the line is that of least squares.
    const float gain = line.s * swqx - line.m * swx;
    if (line.s > 0 && gain > most) {
      most = gain;
      best = line;
    }
  }
  return best;
}

/// The inverse of group_scale().
void put_group_scale(std::uint8_t (&scales)[12], int g, int s, int m) {
  const auto put = [&](int at, int bits) {
    scales[at] = static_cast<std::uint8_t>(scales[at] | bits);
  };
  if (g < 4) {
    put(g, s);
    put(g + 4, m);
  } else {
    put(g + 4, (s & 15) | (m & 15) << 4);
    put(g - 4, s >> 4 << 6);
    put(g, m >> 4 << 6);
  }
}

/// x ≈ d s q − dmin m with s and m in 0..63 and q in 0..last.
template <class Block, class Put>
void pack_groups(const float* x, Block& block, int last, Put put) {
  constexpr int kGroups = 8, kSize = 32, kMostScale = 63;
  std::array<std::array<float, kSize>, kGroups> w;
  std::array<Line, kGroups> lines;
  float s_max = 0, m_max = 0;
  for (std::size_t g = 0; g < kGroups; ++g) {
    weigh(x + kSize * g, kSize, w[g].data());
    lines[g] = search_line(x + kSize * g, w[g].data(), kSize, last);
    s_max = std::max(s_max, lines[g].s);
    m_max = std::max(m_max, lines[g].m);
  }
  block.d = to_f16(s_max / kMostScale);
  block.dmin = to_f16(m_max / kMostScale);
  const float d = to_float(block.d), dmin = to_float(block.dmin);
  for (int g = 0; g < kGroups; ++g) {
    const auto at = static_cast<std::size_t>(g);
    const float* values = x + kSize * g;
    // s and m were chosen as reals; their neighbours among the codes are tried together.
    const int s_near = nearest_code(lines[at].s * inverse(d), kMostScale);
    const int m_near = nearest_code(lines[at].m * inverse(dmin), kMostScale);
    int s_best = s_near, m_best = m_near;
    float least = std::numeric_limits<float>::infinity();
    for (int s = std::max(s_near - 1, 0); s <= std::min(s_near + 1, kMostScale); ++s) {
      for (int m = std::max(m_near - 1, 0); m <= std::min(m_near + 1, kMostScale); ++m) {
        const float error = range_error(values, w[at].data(), kSize, last,
                                        {d * static_cast<float>(s), dmin * static_cast<float>(m)});
        if (error < least) {
          least = error;
          s_best = s;
          m_best = m;
        }
      }
    }
    put_group_scale(block.scales, g, s_best, m_best);
    const float to_code = inverse(d * static_cast<float>(s_best));
    const float m = dmin * static_cast<float>(m_best);
    for (int i = 0; i < kSize; ++i) put(g, i, nearest_code((values[i] + m) * to_code, last));
  }
}

void pack(const float* x, BlockQ4_K& block) {
  pack_groups(x, block, 15, [&](int g, int i, int q) {
    std::uint8_t& low = block.low[g / 2 * 32 + i];
    low = static_cast<std::uint8_t>(low | q << (g % 2 ? 4 : 0));
  });
}
void pack(const float* x, BlockQ5_K& block) {
  pack_groups(x, block, 31, [&](int g, int i, int q) {
    std::uint8_t& low = block.low[g / 2 * 32 + i];
    low = static_cast<std::uint8_t>(low | (q & 15) << (g % 2 ? 4 : 0));
    block.high[i] = static_cast<std::uint8_t>(block.high[i] | q >> 4 << g);
  });
}

/// Codes −32 to 31 for x ≈ s q, as 0 to 63.
int signed_code(float x, float to_code) {
  return nearest_code(x * to_code + 32, 63);
}

float signed_error(const float* x, const float* w, int count, float s) {
  const float to_code = inverse(s);
  float error = 0;
  for (int i = 0; i < count; ++i) {
    const float off = x[i] - s * static_cast<float>(signed_code(x[i], to_code) - 32);
    error += w[i] * off * off;
  }
  return error;
}

/// The scale, of either sign, of one group of q6_k: guesses put the widest value near −32, and the
/// codes of each give the scale of weighted least squares.
float search_scale(const float* x, const float* w, int count) {
  const float widest = extremes(x, count).widest;
  float best = 0, most = 0;
  constexpr int kSteps = 10;
  for (int step = -kSteps; step <= kSteps; ++step) {
    const float to_code = (-32 + static_cast<float>(step) / kSteps) * inverse(widest);
    float swqq = 0, swqx = 0;
    for (int i = 0; i < count; ++i) {
      const auto q = static_cast<float>(signed_code(x[i], to_code) - 32);
      swqq += w[i] * q * q;
      swqx += w[i] * q * x[i];
    }
    const float s = swqx * inverse(swqq);
    const float gain = s * swqx;  // Σ w (x − s q)² = Σ w x² − gain
    if (gain > most) {
      most = gain;
      best = s;
    }
  }
  return best;
}

/// x ≈ d s (q − 32) with s in −128..127 and q in 0..63.
void pack(const float* x, BlockQ6_K& block) {
  constexpr int kGroups = 16, kSize = 16;
  std::array<std::array<float, kSize>, kGroups> w;
  std::array<float, kGroups> scales;
  for (std::size_t g = 0; g < kGroups; ++g) {
    weigh(x + kSize * g, kSize, w[g].data());
    scales[g] = search_scale(x + kSize * g, w[g].data(), kSize);
  }
  block.d = to_f16(extremes(scales.data(), kGroups).widest / -128);
  const float d = to_float(block.d);
  for (int g = 0; g < kGroups; ++g) {
    const auto at = static_cast<std::size_t>(g);
    const float* values = x + kSize * g;
    const int near = nearest_code(scales[at] * inverse(d) + 128, 255) - 128;
    int best = near;
    float least = std::numeric_limits<float>::infinity();
    for (int s = std::max(near - 1, -128); s <= std::min(near + 1, 127); ++s) {
      const float error = signed_error(values, w[at].data(), kSize, d * static_cast<float>(s));
      if (error < least) {
        least = error;
        best = s;
      }
    }
    block.scales[g] = static_cast<std::int8_t>(best);
    const float to_code = inverse(d * static_cast<float>(best));
    for (int i = 0; i < kSize; ++i) {
      const int element = kSize * g + i;
      const int half = element / 128, run = element / 32 % 4, byte = element % 32;
      const int q = signed_code(values[i], to_code);
      std::uint8_t& low = block.low[64 * half + 32 * (run % 2) + byte];
      std::uint8_t& high = block.high[32 * half + byte];
      low = static_cast<std::uint8_t>(low | (q & 15) << (run < 2 ? 0 : 4));
      high = static_cast<std::uint8_t>(high | q >> 4 << 2 * run);
    }
  }
}

template <class Block>
void pack_all(std::span<const float> values, std::byte* to) {
  for (std::size_t at = 0; at < values.size(); at += Block::kElements, to += sizeof(Block)) {
    float x[Block::kElements];
    std::transform(values.begin() + static_cast<std::ptrdiff_t>(at),
                   values.begin() + static_cast<std::ptrdiff_t>(at + Block::kElements), x, finite);
    Block block{};
    pack(x, block);
    std::memcpy(to, &block, sizeof block);
  }
}

}  // namespace

void quantize(DType type, std::span<const float> values, std::byte* blocks) {
  switch (type) {
    case DType::q8_0:
      return pack_all<BlockQ8_0>(values, blocks);
    case DType::q4_0:
      return pack_all<BlockQ4_0>(values, blocks);
    case DType::q4_1:
      return pack_all<BlockQ4_1>(values, blocks);
    case DType::q5_0:
      return pack_all<BlockQ5_0>(values, blocks);
    case DType::q5_1:
      return pack_all<BlockQ5_1>(values, blocks);
    case DType::q4_k:
      return pack_all<BlockQ4_K>(values, blocks);
    case DType::q5_k:
      return pack_all<BlockQ5_K>(values, blocks);
    case DType::q6_k:
      return pack_all<BlockQ6_K>(values, blocks);
    default:
      return;
  }
}

}  // namespace krait
