// Watching kernels: names for a profiler, time between them, and errors by the op that made them.
#include <algorithm>
#include <optional>
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
  explicit Events(CudaDevice& device) : device_(device), stream_(device.stream()) {}
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
    KRAIT_TRY(device_.synchronize());
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
  CudaDevice& device_;
  cudaStream_t stream_;
  std::vector<cudaEvent_t> events_;
};

/// What an error of asynchronous work can be of.
std::string one_of(std::span<const std::string_view> ops) {
  if (ops.empty()) return "work queued before";
  std::string list;
  for (const std::string_view op : ops) list += cat(list.empty() ? "[" : ", [", op, "]");
  if (ops.size() == 1) return list + ", queued before";
  return cat("one of ", list, ", queued before (KRAIT_SYNC=1 names it)");
}

}  // namespace

void CudaDevice::note(std::span<const std::string_view> ops) {
  const std::lock_guard lock(queued_mutex_);
  std::vector<std::string_view>& list = recorded_ ? *recorded_ : queued_;
  for (const std::string_view op : ops) {
    if (std::find(list.begin(), list.end(), op) == list.end()) list.push_back(op);
  }
}

Status CudaDevice::synchronize() {
  std::vector<std::string_view> ops;
  {
    const std::lock_guard lock(queued_mutex_);
    std::swap(ops, queued_);
  }
  const cudaError_t error = cudaStreamSynchronize(stream_);
  if (error == cudaSuccess) return {};
  note(ops);  // whoever asks next gets the same error
  return check(error, one_of(ops));
}

Status CudaDevice::explained(Status status) {
  if (status.code() != Code::device_lost) return status;
  const std::lock_guard lock(queued_mutex_);
  if (queued_.empty()) return status;
  return Status(status.code(), cat(status.message(), "; it may be of ", one_of(queued_)));
}

Status CudaDevice::run(const Kernel& kernel, const Call& call, const Launch& launch) {
  const std::string name =
      names_kernels_ || waits_for_kernels_ ? cat("[", kernel.op, "] ", kernel.name) : "";
  std::optional<Range> range;
  if (names_kernels_) range.emplace(name);
  KRAIT_TRY(explained(kernel.run(call, launch)));
  if (waits_for_kernels_) return check(cudaStreamSynchronize(stream_), name);
  note({&kernel.op, 1});
  return {};
}

Result<std::unique_ptr<TimeMarks>> CudaDevice::time_marks(int count) {
  KRAIT_TRY(check(cudaSetDevice(index_), "selecting the device"));
  auto events = std::make_unique<Events>(*this);
  KRAIT_TRY(events->create(count));
  return std::unique_ptr<TimeMarks>(std::move(events));
}

}  // namespace krait::cuda
