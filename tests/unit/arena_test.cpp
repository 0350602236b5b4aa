// Placing tensors in one block: nothing alive at the same time overlaps, and little is wasted.
#include "runtime/plan/arena.h"

#include <algorithm>
#include <gtest/gtest.h>
#include <random>
#include <vector>

namespace krait {
namespace {

std::int64_t aligned(std::int64_t bytes) {
  return (bytes + kArenaAlignment - 1) / kArenaAlignment * kArenaAlignment;
}

/// The most bytes that are alive at any step: no arena can be smaller.
std::int64_t lower_bound(const std::vector<Lifetime>& lifetimes) {
  std::int64_t most = 0;
  for (const Lifetime& at : lifetimes) {
    std::int64_t alive = 0;
    for (const Lifetime& other : lifetimes) {
      if (other.first <= at.first && at.first <= other.last) alive += aligned(other.bytes);
    }
    most = std::max(most, alive);
  }
  return most;
}

void check(const std::vector<Lifetime>& lifetimes) {
  std::vector<std::int64_t> offsets;
  const std::int64_t total = pack_arena(lifetimes, offsets);
  ASSERT_EQ(offsets.size(), lifetimes.size());
  std::int64_t end = 0;
  for (std::size_t a = 0; a < lifetimes.size(); ++a) {
    ASSERT_GE(offsets[a], 0);
    ASSERT_EQ(offsets[a] % kArenaAlignment, 0);
    ASSERT_LE(offsets[a] + lifetimes[a].bytes, total);
    if (lifetimes[a].bytes > 0) end = std::max(end, offsets[a] + aligned(lifetimes[a].bytes));
    for (std::size_t b = 0; b < a; ++b) {
      const bool together =
          lifetimes[a].first <= lifetimes[b].last && lifetimes[b].first <= lifetimes[a].last;
      const bool apart = offsets[a] + lifetimes[a].bytes <= offsets[b] ||
                         offsets[b] + lifetimes[b].bytes <= offsets[a];
      ASSERT_TRUE(!together || apart || lifetimes[a].bytes == 0 || lifetimes[b].bytes == 0)
          << a << " and " << b;
    }
  }
  EXPECT_EQ(total, end);
  EXPECT_GE(total, lower_bound(lifetimes));
}

TEST(Arena, OfNothingIsEmpty) {
  std::vector<std::int64_t> offsets = {7};
  EXPECT_EQ(pack_arena({}, offsets), 0);
  EXPECT_TRUE(offsets.empty());
  EXPECT_EQ(pack_arena({{0, 0, 5}}, offsets), 0);
}

TEST(Arena, WhatLivesOneAfterTheOtherSharesAPlace) {
  std::vector<std::int64_t> offsets;
  EXPECT_EQ(pack_arena({{1000, 0, 1}, {900, 2, 3}, {1000, 4, 4}}, offsets), 1024);
  EXPECT_EQ(offsets, (std::vector<std::int64_t>{0, 0, 0}));
}

TEST(Arena, TheLastStepStillCounts) {
  std::vector<std::int64_t> offsets;
  EXPECT_EQ(pack_arena({{256, 0, 2}, {256, 2, 3}}, offsets), 512);
}

TEST(Arena, SmallOnesFillTheGapsOfLargeOnes) {
  // The large two are never alive together; the small one is alive with both.
  std::vector<std::int64_t> offsets;
  EXPECT_EQ(pack_arena({{4096, 0, 1}, {4096, 2, 3}, {256, 1, 2}}, offsets), 4096 + 256);
}

TEST(Arena, LiveTensorsNeverOverlap) {
  std::mt19937 random(11);
  double worst = 0;
  for (int round = 0; round < 2000; ++round) {
    const int steps = 1 + static_cast<int>(random() % 40);
    std::vector<Lifetime> lifetimes(random() % 60);
    for (Lifetime& lifetime : lifetimes) {
      lifetime.first = static_cast<int>(random() % static_cast<unsigned>(steps)) - 1;
      lifetime.last = lifetime.first + static_cast<int>(random() % 8);
      // Often the same size, sometimes none, sometimes large.
      const std::int64_t sizes[] = {
          0, 1, 256, 257, 1024, 1024, 65536, static_cast<std::int64_t>(random() % 100000)};
      lifetime.bytes = sizes[random() % std::size(sizes)];
    }
    check(lifetimes);
    if (HasFatalFailure()) return;
    if (lifetimes.empty()) continue;
    std::vector<std::int64_t> offsets;
    const auto least = static_cast<double>(lower_bound(lifetimes));
    if (least > 0) {
      worst = std::max(worst, static_cast<double>(pack_arena(lifetimes, offsets)) / least);
    }
  }
  RecordProperty("worst_ratio_to_lower_bound", std::to_string(worst));
  EXPECT_LT(worst, 2) << "the greedy rule has been broken";
}

TEST(Arena, ALongChainNeedsTwoPlaces) {
  // What a model's layers look like: every value dies when the next is there.
  std::vector<Lifetime> chain;
  chain.reserve(5000);
  for (int step = 0; step < 5000; ++step) chain.push_back({1 << 20, step, step + 1});
  std::vector<std::int64_t> offsets;
  EXPECT_EQ(pack_arena(chain, offsets), 2 << 20);
}

}  // namespace
}  // namespace krait
