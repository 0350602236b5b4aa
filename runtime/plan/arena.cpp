#include "runtime/plan/arena.h"

#include <algorithm>
#include <numeric>

namespace krait {

std::int64_t pack_arena(const std::vector<Lifetime>& lifetimes,
                        std::vector<std::int64_t>& offsets) {
  offsets.assign(lifetimes.size(), 0);
  std::vector<std::size_t> order(lifetimes.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return lifetimes[a].bytes > lifetimes[b].bytes;
  });
  std::vector<std::size_t> placed;  // by rising offset
  std::int64_t total = 0;
  for (const std::size_t item : order) {
    const Lifetime& mine = lifetimes[item];
    if (mine.bytes == 0) continue;
    const std::int64_t bytes =
        (mine.bytes + kArenaAlignment - 1) / kArenaAlignment * kArenaAlignment;
    std::int64_t offset = 0;
    for (const std::size_t other : placed) {
      const Lifetime& theirs = lifetimes[other];
      if (theirs.last < mine.first || theirs.first > mine.last) continue;
      if (offset + bytes <= offsets[other]) break;
      offset = std::max(offset, offsets[other] + (theirs.bytes + kArenaAlignment - 1) /
                                                     kArenaAlignment * kArenaAlignment);
    }
    offsets[item] = offset;
    total = std::max(total, offset + bytes);
    const auto position =
        std::upper_bound(placed.begin(), placed.end(), item,
                         [&](std::size_t a, std::size_t b) { return offsets[a] < offsets[b]; });
    placed.insert(position, item);
  }
  return total;
}

}  // namespace krait
