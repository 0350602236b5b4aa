// What the files of the CUDA backend share on the host side.
#pragma once

#include <cstdint>
#include <cuda_runtime.h>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "backends/backend.h"

namespace krait::cuda {

class Products;
class Staging;

/// ok, or what failed with the runtime's words. Out of memory and lost devices have their own
/// codes.
Status check(cudaError_t error, std::string_view what);

/// What a kernel may know of the device it runs on.
class CudaDevice final : public Device {
 public:
  static Result<std::shared_ptr<Device>> open(int index);
  ~CudaDevice() override;

  const DeviceInfo& info() const override { return info_; }
  std::span<const Kernel> kernels() const override;
  PlanTypes plan_types(Activations activations) const override {
    return {activations == Activations::native ? DType::bf16 : DType::f32, DType::f32};
  }
  Result<std::unique_ptr<Buffer>> allocate(std::int64_t bytes) override;
  Status upload(const void* from, Buffer& to, std::int64_t offset, std::int64_t bytes) override;
  Status download(const Buffer& from, std::int64_t offset, void* to, std::int64_t bytes) override;
  Status copy(const Buffer& from, std::int64_t from_offset, Buffer& to, std::int64_t to_offset,
              std::int64_t bytes) override;
  Status fill_zero(Buffer& buffer, std::int64_t offset, std::int64_t bytes) override;
  bool uses_host_memory() const override { return false; }
  Status synchronize() override;
  std::int64_t free_memory() override;
  Result<double> read_bandwidth(std::int64_t bytes) override;
  /// The stream is held from begin_run() to end_run(), so that no other thread's work gets into a
  /// recording.
  void begin_run() override;
  void end_run() override { stream_mutex_.unlock(); }
  /// Names the kernel for a profiler where KRAIT_NVTX is set, and waits for it where KRAIT_SYNC is,
  /// so that an error names its op.
  Status run(const Kernel& kernel, const Call& call, const Launch& launch) override;
  Result<std::unique_ptr<TimeMarks>> time_marks(int count) override;
  /// Null where KRAIT_NVTX or KRAIT_SYNC ask to see the kernels one by one.
  Result<std::unique_ptr<Recording>> record(const std::function<Status()>& body) override;

  /// Remembers that these ops were queued, for the errors of whoever waits for them.
  void note(std::span<const std::string_view> ops);
  /// An error that may be one of work queued before, which the runtime reports by whatever call
  /// comes next, with the ops that it can be of.
  Status explained(Status status);
  cudaStream_t stream() const { return stream_; }
  int multiprocessors() const { return multiprocessors_; }
  /// Shared memory that a block may ask for.
  int shared_bytes() const { return shared_bytes_; }
  /// Whether kernels may start before the one before them has ended (early_launch.cuh).
  bool early_launch() const { return early_launch_; }
  int compute_capability() const { return compute_capability_; }  ///< 90 for 9.0
  /// Whether kernels may use clusters of blocks and the copy engine: of compute capability 9.0, and
  /// code for it.
  bool has_clusters() const { return compute_capability_ >= 90 && early_launch_; }
  /// Matrix products on cuBLASLt; between begin_run() and end_run().
  Products& products();

 private:
  CudaDevice(int index, cudaStream_t stream, const cudaDeviceProp& properties);
  int index_;
  cudaStream_t stream_;
  int multiprocessors_;
  int shared_bytes_;
  bool early_launch_;
  int compute_capability_;
  bool names_kernels_, waits_for_kernels_;
  DeviceInfo info_;
  std::mutex stream_mutex_;
  std::mutex queued_mutex_;
  std::vector<std::string_view> queued_;  ///< ops, each once, since the stream was last waited for
  std::vector<std::string_view>* recorded_ = nullptr;  ///< those of the recording that is made
  std::map<std::int64_t, double> read_bandwidths_;     ///< by bytes
  std::unique_ptr<Products> products_;
  std::unique_ptr<Staging> staging_;
};

inline cudaStream_t stream_of(const Launch& launch) {
  return static_cast<CudaDevice&>(launch.device).stream();
}

/// After a kernel was queued: did the launch itself fail?
Status launched(const Call& call);

/// Whether the kernels of this module, as they run on the current device, wait for their inputs
/// themselves where they are launched early (early_launch.cuh).
bool compiled_for_early_launch();

/// Every device this machine has.
std::vector<DeviceInfo> list_cuda_devices();

/// Whether rows begin at multiples of sixteen bytes. (What a view's memory itself is aligned to is
/// more.)
inline bool rows_aligned(const TensorView& view) {
  return view.offset % 16 == 0 && bytes_of(view.dtype, view.stride[0]) % 16 == 0;
}

/// The same of rows in memory.
inline bool aligned_to_16(const void* p, std::int64_t row_bytes = 0) {
  return reinterpret_cast<std::uintptr_t>(p) % 16 == 0 && row_bytes % 16 == 0;
}

/// Empty for f32, f16 and bf16 (and absent operands); else the reason for a refusal.
std::string want_float(std::string_view operand, const TensorView& view);

}  // namespace krait::cuda
