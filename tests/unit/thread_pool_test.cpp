#include "backends/cpu/thread_pool.h"

#include <algorithm>
#include <chrono>
#include <gtest/gtest.h>
#include <thread>
#include <vector>

namespace krait::cpu {
namespace {

TEST(ThreadPool, RunsEveryIndexOnce) {
  for (const int threads : {1, 2, 3, 8}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.threads(), threads);
    for (const std::int64_t count : {0, 1, 2, 7, 64, 1000}) {
      std::vector<int> hits(static_cast<std::size_t>(count), 0);
      pool.parallel_for(count, [&](std::int64_t i) { ++hits[static_cast<std::size_t>(i)]; });
      EXPECT_EQ(std::count(hits.begin(), hits.end(), 1), count);
    }
  }
}

TEST(ThreadPool, ManyShortJobsSeeEachOthersWrites) {
  ThreadPool pool(4);
  std::vector<std::int64_t> values(64, 0);
  pool.begin();
  for (int job = 0; job < 20000; ++job) {
    // Each element depends on another one's value of the job before.
    const std::vector<std::int64_t> before = values;
    pool.parallel_for(64, [&](std::int64_t i) {
      values[static_cast<std::size_t>(i)] = before[static_cast<std::size_t>(63 - i)] + 1;
    });
  }
  pool.end();
  EXPECT_EQ(values, std::vector<std::int64_t>(64, 20000));
}

TEST(ThreadPool, WorkersThatSleptComeBack) {
  ThreadPool pool(3);
  for (int round = 0; round < 5; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    std::atomic<int> done{0};
    if (round % 2) pool.begin();
    pool.parallel_for(100, [&](std::int64_t) { done.fetch_add(1); });
    if (round % 2) pool.end();
    EXPECT_EQ(done.load(), 100);
  }
}

TEST(ThreadPool, ManyMoreThreadsThanCoresStillFinish) {
  ThreadPool pool(32);
  std::atomic<std::int64_t> sum{0};
  pool.begin();
  for (int job = 0; job < 200; ++job) {
    pool.parallel_for(128, [&](std::int64_t i) { sum.fetch_add(i); });
  }
  pool.end();
  EXPECT_EQ(sum.load(), 200 * 127 * 128 / 2);
}

TEST(ThreadPool, StopsWhileWorkersAreAwakeOrAsleep) {
  for (int round = 0; round < 50; ++round) {
    ThreadPool pool(4);
    if (round % 2) pool.begin();
  }
}

}  // namespace
}  // namespace krait::cpu
