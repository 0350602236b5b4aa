// Watching kernels: names for a profiler, time between them, and errors by the op that made them.
#include <vector>

#include "backends/cuda/cuda.h"
#include "runtime/core/try.h"

#if __has_include(<nvtx3/nvToolsExt.h>)
#include <nvtx3/nvToolsExt.h>
#endif

namespace krait::cuda {
namespace {

/// A named stretch of this thread's time, as profilers show it.
class Range {
 public:
#ifdef NVTX_VERSION
  explicit Range(const std::string& name) {
    nvtxRangePushA(name.c_str());
  }
  ~Range() {
    nvtxRangePop();
  }
#else
  explicit Range(const std::string&) {}
#endif
  Range(const Range&) = delete;
  Range& operator=(const Range&) = delete;
};

class Events final : public TimeMarks {
 public:
  explicit Events(cudaStream_t stream) : stream_(stream) {}
  ~Events() override {
    for (const cudaEvent_t event : events_) cudaEventDestroy(event);
  }
  Events(const Events&) = delete;
  Events& operator=(const Events&) = delete;

  Status create(int count) {
    for (int i = 0; i < count; ++i) {
      cudaEvent_t event = nullptr;
      KRAIT_TRY(cuda::check(cudaEventCreate(&event), "creating an event"));
      events_.push_back(event);
    }
    return {};
  }
  Status mark(int i) override {
    cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;
    KRAIT_TRY(cuda::check(cudaStreamIsCapturing(stream_, &capture), "recording an event"));
    // External: a node of the graph, so that every replay sets the event.
    const unsigned flags =
        capture == cudaStreamCaptureStatusNone ? cudaEventRecordDefault : cudaEventRecordExternal;
    return cuda::check(
        cudaEventRecordWithFlags(events_[static_cast<std::size_t>(i)], stream_, flags),
        "recording an event");
  }
  Result<std::vector<double>> intervals() override {
    KRAIT_TRY(cuda::check(cudaStreamSynchronize(stream_), "work between events"));
    std::vector<double> seconds;
    for (std::size_t i = 1; i < events_.size(); ++i) {
      float milliseconds = 0;
      KRAIT_TRY(cuda::check(cudaEventElapsedTime(&milliseconds, events_[i - 1], events_[i]),
                            "the time between events"));
      seconds.push_back(static_cast<double>(milliseconds) * 1e-3);
    }
    return seconds;
  }

 private:
  cudaStream_t stream_;
  std::vector<cudaEvent_t> events_;
};

}  // namespace

Status CudaDevice::run(const Kernel& kernel, const Call& call, const Launch& launch) {
  if (!names_kernels_ && !waits_for_kernels_) return kernel.run(call, launch);
  const std::string name = cat("[", kernel.op, "] ", kernel.name);
  const Range range(name);
  KRAIT_TRY(kernel.run(call, launch));
  if (!waits_for_kernels_) return {};
  return check(cudaStreamSynchronize(stream_), name);
}

Result<std::unique_ptr<TimeMarks>> CudaDevice::time_marks(int count) {
  KRAIT_TRY(check(cudaSetDevice(index_), "selecting the device"));
  auto events = std::make_unique<Events>(stream_);
  KRAIT_TRY(events->create(count));
  return std::unique_ptr<TimeMarks>(std::move(events));
}

}  // namespace krait::cuda
