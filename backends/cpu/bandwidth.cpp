#include "backends/cpu/bandwidth.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <vector>

#include "backends/host_memory.h"

namespace krait::cpu {
namespace {

/// Not a power of two: streams that far apart would meet in the same sets of the caches.
constexpr std::int64_t kBlock = std::int64_t{192} << 10;
constexpr int kPasses = 7;
constexpr std::int64_t kChunk = 256;  // a cache line of every stream

/// The sum of a block's 64-bit words. Four streams at once, as kernels read several rows at once:
/// one alone leaves the hardware prefetchers waiting.
std::uint64_t sum_of(const std::byte* block, std::int64_t bytes) {
  constexpr int kStreams = 4;
  constexpr int kWords = 8;
  std::uint64_t sums[kStreams][kWords] = {};
  const std::int64_t stream = bytes / (kStreams * 64) * 64;
  for (std::int64_t at = 0; at < stream; at += 64) {
    for (int s = 0; s < kStreams; ++s) {
      std::uint64_t words[kWords];
      std::memcpy(words, block + s * stream + at, sizeof words);
      for (int i = 0; i < kWords; ++i) sums[s][i] += words[i];
    }
  }
  std::uint64_t sum = 0;
  for (const auto& of_stream : sums) {
    for (const std::uint64_t part : of_stream) sum += part;
  }
  return sum;
}

}  // namespace

Result<double> measure_read_bandwidth(ThreadPool& pool, std::int64_t bytes) {
  bytes = std::max((bytes + kChunk - 1) / kChunk * kChunk, kChunk);
  KRAIT_ASSIGN(const std::unique_ptr<Buffer> buffer, HostBuffer::allocate(bytes));
  auto* data = static_cast<std::byte*>(buffer->memory());
  std::memset(data, 1, static_cast<std::size_t>(bytes));
  const std::int64_t blocks = (bytes + kBlock - 1) / kBlock;
  std::vector<std::uint64_t> sums(
      static_cast<std::size_t>(blocks));  // so that nothing is optimised away
  double best = 0;
  pool.begin();
  for (int pass = 0; pass <= kPasses; ++pass) {
    const auto start = std::chrono::steady_clock::now();
    pool.parallel_for(blocks, [&](std::int64_t b) {
      sums[static_cast<std::size_t>(b)] =
          sum_of(data + b * kBlock, std::min(kBlock, bytes - b * kBlock));
    });
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (pass > 0) best = std::max(best, static_cast<double>(bytes) / seconds);
  }
  pool.end();
  for (std::int64_t b = 0; b < blocks; ++b) {
    const std::int64_t words = std::min(kBlock, bytes - b * kBlock) / kChunk * (kChunk / 8);
    if (sums[static_cast<std::size_t>(b)] !=
        static_cast<std::uint64_t>(words) * 0x0101010101010101u) {
      return Status(Code::internal,
                    "[cpu] the bandwidth measurement read something else than it wrote");
    }
  }
  return best;
}

}  // namespace krait::cpu
