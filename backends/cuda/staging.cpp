#include "backends/cuda/staging.h"

#include <algorithm>
#include <cstring>
#include <thread>
#include <vector>

#include "backends/cuda/cuda.h"
#include "runtime/core/try.h"

namespace krait::cuda {

Result<std::unique_ptr<Staging>> Staging::create(int device) {
  std::unique_ptr<Staging> staging(new Staging(device));
  KRAIT_TRY(check(cudaMallocHost(&staging->memory_, kPiece * std::size_t{2 * kWorkers}),
                  "allocating pinned memory"));
  auto* memory = static_cast<std::byte*>(staging->memory_);
  for (Slot& slot : staging->slots_) {
    slot.memory = memory;
    memory += kPiece;
    KRAIT_TRY(
        check(cudaEventCreateWithFlags(&slot.sent, cudaEventDisableTiming), "creating an event"));
  }
  return staging;
}

Staging::~Staging() {
  cudaSetDevice(device_);
  for (const Slot& slot : slots_) {
    if (!slot.sent) continue;
    cudaEventSynchronize(slot.sent);
    cudaEventDestroy(slot.sent);
  }
  cudaFreeHost(memory_);
}

/// Every `stride`th piece, from number `first` on, with the slots of worker `first`.
Status Staging::upload_every(int first, int stride, const std::byte* from, std::byte* to,
                             std::int64_t bytes, cudaStream_t stream) {
  KRAIT_TRY(check(cudaSetDevice(device_), "selecting the device"));
  int turn = 0;
  for (std::int64_t at = first * kPiece; at < bytes; at += stride * kPiece, turn = 1 - turn) {
    const Slot& slot = slots_[static_cast<std::size_t>(2 * first + turn)];
    const auto part = static_cast<std::size_t>(std::min(kPiece, bytes - at));
    KRAIT_TRY(check(cudaEventSynchronize(slot.sent), "upload"));
    std::memcpy(slot.memory, from + at, part);
    KRAIT_TRY(check(cudaMemcpyAsync(to + at, slot.memory, part, cudaMemcpyHostToDevice, stream),
                    "upload"));
    KRAIT_TRY(check(cudaEventRecord(slot.sent, stream), "upload"));
  }
  return {};
}

Status Staging::upload(const std::byte* from, std::byte* to, std::int64_t bytes,
                       cudaStream_t stream) {
  const std::int64_t pieces = (bytes + kPiece - 1) / kPiece;
  const int workers = static_cast<int>(std::min<std::int64_t>(
      {pieces, kWorkers, std::max<std::int64_t>(std::thread::hardware_concurrency(), 1)}));
  std::array<Status, kWorkers> outcomes;
  {
    std::vector<std::jthread> threads;
    for (int w = 1; w < workers; ++w) {
      threads.emplace_back([&, w] {
        outcomes[static_cast<std::size_t>(w)] = upload_every(w, workers, from, to, bytes, stream);
      });
    }
    if (workers > 0) outcomes[0] = upload_every(0, workers, from, to, bytes, stream);
  }
  for (const Status& outcome : outcomes) KRAIT_TRY(outcome);
  return {};
}

}  // namespace krait::cuda
