#include "backends/cpu/thread_pool.h"

#include <algorithm>
#include <system_error>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace krait::cpu {
namespace {

/// Tells the core that this is a spin: some tens of cycles.
void pause() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  __asm__ volatile("isb");
#endif
}

/// Some 50 µs: longer than what lies between two jobs of a plan, much shorter than a time slice.
constexpr int kSpins = 2000;

/// More pieces than threads, so that a thread that is held up holds up little.
constexpr std::int64_t kPiecesPerThread = 4;

}  // namespace

ThreadPool::ThreadPool(int threads) {
  try {
    for (int i = 1; i < threads; ++i) workers_.emplace_back([this] { worker(); });
  } catch (const std::system_error&) {
    // The system gives no more threads: go on with those there are.
  }
}

ThreadPool::~ThreadPool() {
  stop_.store(true);
  wake_all();
  for (std::thread& thread : workers_) thread.join();
}

void ThreadPool::begin() {
  awake_.store(true);
  if (sleeping_.load() > 0) wake_all();
}

void ThreadPool::end() {
  awake_.store(false);
}

void ThreadPool::wake_all() {
  epoch_.fetch_add(1);
  epoch_.notify_all();
}

void ThreadPool::run(std::int64_t count, Range range, const void* context) {
  if (count <= 0) return;
  const std::int64_t pieces = std::min<std::int64_t>(count, kPiecesPerThread * threads());
  if (workers_.empty() || pieces == 1) return range(context, 0, count);
  range_ = range;
  context_ = context;
  count_ = count;
  pieces_ = pieces;
  finished_.store(0, std::memory_order_relaxed);
  const std::uint64_t number = (ticket_.load(std::memory_order_relaxed) >> 32) + 1;
  ticket_.store(number << 32 | static_cast<std::uint64_t>(pieces));
  // Sequential consistency: either this sees the sleeper, or the sleeper saw the ticket.
  if (sleeping_.load() > 0) wake_all();
  work();
  for (int spins = 0; finished_.load(std::memory_order_acquire) != pieces; ++spins) {
    if (spins < kSpins) {
      pause();
    } else {
      std::this_thread::yield();  // whoever holds the last piece may be waiting for this core
    }
  }
}

void ThreadPool::work() {
  std::uint64_t ticket = ticket_.load(std::memory_order_acquire);
  while ((ticket & kRemaining) != 0) {
    if (!ticket_.compare_exchange_weak(ticket, ticket - 1, std::memory_order_acq_rel,
                                       std::memory_order_acquire)) {
      continue;
    }
    // The piece is ours, and the job cannot change before we report it finished.
    const std::int64_t piece = pieces_ - static_cast<std::int64_t>(ticket & kRemaining);
    range_(context_, piece * count_ / pieces_, (piece + 1) * count_ / pieces_);
    finished_.fetch_add(1, std::memory_order_release);
    ticket = ticket_.load(std::memory_order_acquire);
  }
}

void ThreadPool::worker() {
  while (!stop_.load()) {
    work();
    bool found = false;
    for (int spins = 0; spins < kSpins && !found && awake_.load(std::memory_order_relaxed);
         ++spins) {
      pause();
      found = has_work();
    }
    if (!found) sleep();
  }
}

void ThreadPool::sleep() {
  const std::uint32_t epoch = epoch_.load();
  sleeping_.fetch_add(1);
  if (!has_work() && !stop_.load()) epoch_.wait(epoch);
  sleeping_.fetch_sub(1);
}

}  // namespace krait::cpu
