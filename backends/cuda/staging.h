// Uploads from memory that the device cannot read by itself, such as a mapped file, at the speed of
// the link: through pinned memory, in pieces, by several threads.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cuda_runtime.h>
#include <memory>

#include <krait/status.h>

namespace krait::cuda {

class Staging {
 public:
  static Result<std::unique_ptr<Staging>> create(int device);
  ~Staging();
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;

  /// Queues a copy from the host to the device. `from` may change once this returns.
  Status upload(const std::byte* from, std::byte* to, std::int64_t bytes, cudaStream_t stream);

 private:
  // One core may copy less than a link takes, most of all where pages of a file are mapped first.
  static constexpr int kWorkers = 4;
  static constexpr std::int64_t kPiece = std::int64_t{4} << 20;

  /// A worker fills one of its two slots while the other is on its way.
  struct Slot {
    std::byte* memory = nullptr;
    cudaEvent_t sent = nullptr;
  };

  explicit Staging(int device) : device_(device) {}
  Status upload_every(int first, int stride, const std::byte* from, std::byte* to,
                      std::int64_t bytes, cudaStream_t stream);

  int device_;
  void* memory_ = nullptr;  ///< of all slots
  std::array<Slot, 2 * kWorkers> slots_;
};

}  // namespace krait::cuda
