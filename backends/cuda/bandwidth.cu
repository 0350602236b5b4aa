// The rate at which this device reads its memory, measured: what kernels that are bound by memory
// are compared with.
#include <algorithm>
#include <vector>

#include "backends/cuda/cuda.h"
#include "runtime/core/try.h"

namespace krait::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kBlocksPerMultiprocessor = 8;
constexpr int kLoads = 4;  // in flight per thread
constexpr int kRuns = 9;
/// A run reads at least so much, so that the time of a launch does not count.
constexpr std::int64_t kLeastRead = std::int64_t{256} << 20;
constexpr int kMostPasses = 256;  // over a buffer so small that its rate tells nothing

/// Adds up `count` quadruples of words, `passes` times: `sum[b]` is what block b saw.
__global__ void read_all(const uint4* data, std::int64_t count, int passes, unsigned* sum) {
  __shared__ unsigned of_block;
  if (threadIdx.x == 0) of_block = 0;
  __syncthreads();
  const std::int64_t stride = std::int64_t{gridDim.x} * kThreads;
  const std::int64_t first = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  unsigned total = 0;
  for (int pass = 0; pass < passes; ++pass) {
    std::int64_t i = first;
    for (; i + (kLoads - 1) * stride < count; i += kLoads * stride) {
      uint4 words[kLoads];
      // Not through the L1 cache, which would answer every pass but the first.
      for (int k = 0; k < kLoads; ++k) words[k] = __ldcg(data + i + k * stride);
      for (int k = 0; k < kLoads; ++k) total += words[k].x + words[k].y + words[k].z + words[k].w;
    }
    for (; i < count; i += stride) {
      const uint4 words = __ldcg(data + i);
      total += words.x + words.y + words.z + words.w;
    }
  }
  atomicAdd(&of_block, total);
  __syncthreads();
  if (threadIdx.x == 0) sum[blockIdx.x] = of_block;
}

}  // namespace

Result<double> CudaDevice::read_bandwidth(std::int64_t bytes) {
  const std::int64_t count = std::max<std::int64_t>(bytes / 16, 1);
  bytes = count * 16;
  {
    const std::lock_guard lock(stream_mutex_);
    if (const auto known = read_bandwidths_.find(bytes); known != read_bandwidths_.end())
      return known->second;
  }
  const std::int64_t wanted = (count + kThreads * kLoads - 1) / (kThreads * kLoads);
  const int blocks = static_cast<int>(
      std::min<std::int64_t>(wanted, std::int64_t{multiprocessors_} * kBlocksPerMultiprocessor));
  const int passes =
      static_cast<int>(std::min<std::int64_t>((kLeastRead + bytes - 1) / bytes, kMostPasses));
  KRAIT_ASSIGN(const std::unique_ptr<Buffer> data, allocate(bytes));
  KRAIT_ASSIGN(const std::unique_ptr<Buffer> sums,
               allocate(blocks * static_cast<std::int64_t>(sizeof(unsigned))));
  KRAIT_ASSIGN(const std::unique_ptr<TimeMarks> marks, time_marks(2));
  std::vector<double> seconds;
  std::vector<unsigned> got(static_cast<std::size_t>(blocks));
  {
    const std::lock_guard lock(stream_mutex_);
    KRAIT_TRY(check(cudaMemsetAsync(data->memory(), 1, static_cast<std::size_t>(bytes), stream_),
                    "measuring read bandwidth"));
    for (int run = 0; run <= kRuns; ++run) {  // the first one warms up
      KRAIT_TRY(marks->mark(0));
      read_all<<<blocks, kThreads, 0, stream_>>>(static_cast<const uint4*>(data->memory()), count,
                                                 passes, static_cast<unsigned*>(sums->memory()));
      KRAIT_TRY(check(cudaGetLastError(), "measuring read bandwidth"));
      KRAIT_TRY(marks->mark(1));
      KRAIT_ASSIGN(const std::vector<double> intervals, marks->intervals());
      if (run > 0) seconds.push_back(intervals[0]);
    }
  }
  KRAIT_TRY(download(*sums, 0, got.data(), sums->bytes()));
  unsigned total = 0;
  for (const unsigned of_block : got) total += of_block;
  if (total != static_cast<unsigned>(count * 4 * passes) * 0x01010101u) {
    return Status(Code::internal,
                  "[cuda] the bandwidth measurement read something else than it wrote");
  }
  std::nth_element(seconds.begin(), seconds.begin() + kRuns / 2, seconds.end());
  const double rate = static_cast<double>(bytes) * passes / seconds[kRuns / 2];
  const std::lock_guard lock(stream_mutex_);
  return read_bandwidths_[bytes] = rate;
}

}  // namespace krait::cuda
