// What the ops that run over packed sequences share.
#pragma once

#include <algorithm>

#include "backends/cpu/kernel.h"

namespace krait::cpu {

inline Sequences sequences_of(const TensorView& starts, const TensorView& slot_in,
                              const TensorView& slot_out) {
  return {starts.as<const std::int32_t>(), slot_in.as<const std::int32_t>(),
          slot_out.as<const std::int32_t>()};
}

/// Calls body(sequence, first channel, last channel) for every sequence and block of channels,
/// shared among threads.
template <class Body>
void for_channels(ThreadPool& pool, std::int64_t sequences, std::int64_t channels,
                  std::int64_t block_channels, const Body& body) {
  const std::int64_t blocks = blocks_of(channels, block_channels);
  pool.parallel_for(sequences * blocks, [&](std::int64_t i) {
    const std::int64_t d = i % blocks * block_channels;
    body(i / blocks, d, std::min(d + block_channels, channels));
  });
}

}  // namespace krait::cpu
