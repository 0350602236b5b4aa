// What a backend is: devices with memory, and kernels that run op calls on it. A backend never sees
// a graph.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "backends/time_marks.h"
#include "ops/op.h"
#include <krait/device.h>
#include <krait/status.h>

namespace krait {

class Device;

/// Memory of a device; freed with the object.
class Buffer {
 public:
  virtual ~Buffer() = default;
  /// What TensorView::memory holds for tensors in this buffer. Never null, even for no bytes.
  virtual void* memory() const = 0;
  virtual std::int64_t bytes() const = 0;
};

/// How a kernel wants a weight to lie in memory. Packed once per (tensor, layout, device).
struct WeightLayout {
  std::string_view name;
  /// Bytes of the packed form, and the view that kernels receive (memory filled in later).
  std::int64_t (*bytes)(const TensorView& stored);
  TensorView (*view)(const TensorView& stored);
  /// Fills host memory `packed` (64-byte aligned); it is uploaded afterwards where the device's
  /// memory is not the host's.
  void (*pack)(const TensorView& stored, std::byte* packed);
  /// Where rows are packed one after the other: packs `count` rows from `first` on, a multiple of
  /// `part_rows`, to their place in `packed`. So a large matrix need not be in memory twice.
  std::int64_t part_rows = 0;
  void (*pack_part)(const TensorView& stored, std::int64_t first, std::int64_t count,
                    std::byte* packed) = nullptr;
};

/// What a running kernel may use besides its operands.
struct Launch {
  Device& device;
  TensorView workspace;  ///< u8[bytes] as the kernel asked, 256-byte aligned; contents undefined
  /// Whether the call's states may be read before the calls before it have ended: none that may
  /// still run writes them.
  bool early = false;
  /// Bytes of weights, u8[n], that a later call reads and that may be fetched into a cache while
  /// this one runs; null for none.
  TensorView ahead = {};
  /// Whether the next call may start before this one has its inputs; see Kernel::holds_weights. A
  /// kernel heeds it where it leaves room for that.
  bool next_first = false;
};

struct Kernel {
  std::string_view op;
  std::string_view name;  ///< unique per op within a backend: "avx512", "gemv.avx512"
  /// Empty if the kernel can run the call on the device, otherwise the reason why not. Types,
  /// shapes and attributes are final; memory is not bound yet. A yes for T tokens and S sequences
  /// must hold for fewer as well.
  std::string (*supports)(const Call& call, const Device& device);
  /// Queues or does the work; operands have passed check(). Index values were checked by the
  /// caller.
  Status (*run)(const Call& call, const Launch& launch);
  /// Bytes of scratch memory; null for none. Must not shrink when T or S grows.
  std::int64_t (*workspace)(const Call& call, const Device& device) = nullptr;
  /// The layout wanted of input `i`, or null for as stored; null for all as stored.
  const WeightLayout* (*layout)(const Call& call, int i) = nullptr;
  /// Whether the kernel, started early, only gets weights, and states as Launch::early says, into
  /// memory of its own, and so may start before the one before it has its inputs.
  bool holds_weights = false;
};

/// Types that a plan's values have on a device.
struct PlanTypes {
  DType activation = DType::f32;
  DType wide = DType::f32;  ///< residual stream, dt, logits, parameters
};

/// Work of a device that was recorded once and runs again at the cost of one launch.
class Recording {
 public:
  virtual ~Recording() = default;
  /// Queues all of it, with the pointers and sizes that it was recorded with.
  virtual Status replay() = 0;
};

/// An opened device. Allocation and copies may be called from any thread; one plan or eager call
/// runs at a time (see run_lock in the implementations).
class Device {
 public:
  virtual ~Device() = default;
  virtual const DeviceInfo& info() const = 0;
  /// In priority order: of the kernels of an op, the first that supports a call runs it.
  virtual std::span<const Kernel> kernels() const = 0;
  virtual PlanTypes plan_types(Activations activations) const = 0;

  virtual Result<std::unique_ptr<Buffer>> allocate(std::int64_t bytes) = 0;
  virtual Status upload(const void* from, Buffer& to, std::int64_t offset, std::int64_t bytes) = 0;
  virtual Status download(const Buffer& from, std::int64_t offset, void* to,
                          std::int64_t bytes) = 0;
  virtual Status copy(const Buffer& from, std::int64_t from_offset, Buffer& to,
                      std::int64_t to_offset, std::int64_t bytes) = 0;
  virtual Status fill_zero(Buffer& buffer, std::int64_t offset, std::int64_t bytes) = 0;
  /// Whether kernels read host memory directly, so that weights need no upload.
  virtual bool uses_host_memory() const = 0;
  /// Waits until queued work is done; reports its errors.
  virtual Status synchronize() = 0;
  /// CPU threads in use; 0 where that has no meaning.
  virtual int threads() const { return 0; }
  /// Bytes of the device's memory that nobody uses; 0 where that is not known.
  virtual std::int64_t free_memory() { return 0; }
  /// Bytes per second read from a buffer of this size; see krait::read_bandwidth.
  virtual Result<double> read_bandwidth(std::int64_t) {
    return Status(Code::unsupported, "this device's read bandwidth is not measured");
  }
  /// Called around the kernels of one plan, from one thread at a time per device.
  virtual void begin_run() {}
  virtual void end_run() {}
  /// Runs a kernel of this device: the place for what a device does around each of them.
  virtual Status run(const Kernel& kernel, const Call& call, const Launch& launch) {
    return kernel.run(call, launch);
  }
  /// For measuring the time of what is queued between begin_run() and end_run().
  virtual Result<std::unique_ptr<TimeMarks>> time_marks(int count) {
    return std::unique_ptr<TimeMarks>(std::make_unique<HostTimeMarks>(count));
  }
  /// Records what `body` queues, without running it. Null where the device gains nothing by it.
  /// Called between begin_run() and end_run().
  virtual Result<std::unique_ptr<Recording>> record(const std::function<Status()>& body) {
    (void)body;
    return std::unique_ptr<Recording>();
  }
};

/// A family of devices.
struct Backend {
  std::string_view name;
  std::vector<DeviceInfo> (*devices)();
  Result<std::shared_ptr<Device>> (*open)(int index, const DeviceOptions& options);
};

/// Every backend of this build, in the order of backends.inc.
std::span<const Backend* const> all_backends();

/// The kernel that runs a call, and why the ones before it declined.
struct KernelChoice {
  const Kernel* kernel = nullptr;
  std::vector<std::string> refused;  ///< "name: reason"
};

/// Chooses by priority. KRAIT_FORCE_KERNEL holds comma-separated entries `name` or `op:name`: for
/// an op that an entry applies to, only kernels whose name contains `name` are candidates.
Result<KernelChoice> choose_kernel(const Call& call, const Device& device);

/// Runs one call on host operands, without a plan: uploads, chooses, runs, waits, downloads.
/// `chosen`, if not null, receives the kernel's name.
Status run_eager(const Call& host_call, Device& device, std::string* chosen = nullptr);

/// Checks index operands of a call in host memory: starts rising from 0 to T, slots within the
/// states, no slot written twice or written by one sequence and read by another, ids and rows
/// within their tables.
Status check_indices(const Call& call);

}  // namespace krait
