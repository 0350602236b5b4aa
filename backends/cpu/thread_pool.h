// Threads that share the blocks of one job at a time. Blocks are fixed by the caller and know
// nothing of threads, so results cannot depend on how many there are.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <type_traits>
#include <vector>

namespace krait::cpu {

class ThreadPool {
 public:
  /// `threads` counts the calling thread; where the system gives fewer, there are fewer.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  /// Calls body(i) for every i in [0, count), on the caller and the workers, in no given order, and
  /// returns when all are done. The body must not throw. One caller at a time; allocates nothing.
  template <class Body>
  void parallel_for(std::int64_t count, const Body& body) {
    run(
        count,
        [](const void* context, std::int64_t first, std::int64_t last) {
          for (std::int64_t i = first; i < last; ++i) (*static_cast<const Body*>(context))(i);
        },
        &body);
  }

  /// Between begin and end, idle workers spin for a while before they sleep, since the next job of
  /// a plan follows within microseconds.
  void begin();
  void end();

 private:
  using Range = void (*)(const void* context, std::int64_t first, std::int64_t last);

  void run(std::int64_t count, Range range, const void* context);
  void work();
  void worker();
  void sleep();
  bool has_work() const { return (ticket_.load() & kRemaining) != 0; }
  void wake_all();

  static constexpr std::uint64_t kRemaining = 0xffffffffu;

  // The job: written by the caller while no piece is unclaimed or running, read by whoever holds
  // a piece.
  Range range_ = nullptr;
  const void* context_ = nullptr;
  std::int64_t count_ = 0;
  std::int64_t pieces_ = 0;

  // The job's number, and below it how many of its pieces nobody has claimed yet. Claiming is one
  // compare-and-swap; a worker that slept through a job finds nothing to claim, and nobody waits
  // for a worker that holds no piece.
  alignas(64) std::atomic<std::uint64_t> ticket_{0};
  alignas(64) std::atomic<std::int64_t> finished_{0};
  alignas(64) std::atomic<std::uint32_t> epoch_{0};  // what sleepers wait on
  std::atomic<int> sleeping_{0};
  std::atomic<bool> awake_{false};
  std::atomic<bool> stop_{false};
  std::vector<std::thread> workers_;
};

}  // namespace krait::cpu
