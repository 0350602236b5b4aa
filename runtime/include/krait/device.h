// Devices: what can run Krait's kernels here.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <krait/export.h>
#include <krait/status.h>

namespace krait {

class Device;

struct DeviceInfo {
  std::string name;         ///< what --device takes: "cpu", "reference", "cuda:0"
  std::string backend;      ///< "cpu"
  std::string description;  ///< "AMD EPYC, 2 threads, avx512"
  std::int64_t memory = 0;  ///< bytes, 0 if not known
};

/// What matrix products may do with their inputs. Sums are float32 in both.
enum class Activations {
  exact,   ///< keep them as they are, so that every device computes the same model
  native,  ///< round them to bfloat16, or to int8 in blocks, where that is faster
};
KRAIT_API std::string_view name(Activations activations);

struct DeviceOptions {
  int threads = 0;  ///< of CPU devices; 0: one per available core
};

/// Every device of every backend, in the order in which an automatic choice prefers them.
KRAIT_API std::vector<DeviceInfo> list_devices();

/// Opens a device by name: "cpu", "cuda" (the first of that backend), "cuda:1". An empty name takes
/// KRAIT_DEVICE from the environment, and without that the first listed device.
KRAIT_API Result<std::shared_ptr<Device>> open_device(std::string_view name = {},
                                                      const DeviceOptions& options = {});
KRAIT_API const DeviceInfo& info(const Device& device);
/// CPU threads that a device uses; 0 where it is not a CPU.
KRAIT_API int device_threads(const Device& device);
/// Bytes per second that the device reads from a buffer of this size, the best of several passes:
/// what a memory-bound kernel could reach. unsupported where it is not measured.
KRAIT_API Result<double> read_bandwidth(Device& device, std::int64_t bytes);

}  // namespace krait
