// Placing tensors in one block of memory so that those alive at the same time do not overlap.
#pragma once

#include <cstdint>
#include <vector>

namespace krait {

/// A tensor needs `bytes` from step `first` to step `last`, both included.
struct Lifetime {
  std::int64_t bytes = 0;
  int first = 0;
  int last = 0;
};

inline constexpr std::int64_t kArenaAlignment = 256;

/// Greedy by size: the largest first, each at the lowest offset that is free over its lifetime
/// (Pisarchyk and Lee, "Efficient memory management for deep neural net inference", 2020). Returns
/// the size of the arena.
std::int64_t pack_arena(const std::vector<Lifetime>& lifetimes, std::vector<std::int64_t>& offsets);

}  // namespace krait
