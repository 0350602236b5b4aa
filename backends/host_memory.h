// Memory and copies of devices whose kernels run on the host: reference and cpu.
#pragma once

#include <cstring>
#include <memory>
#include <new>

#include "backends/backend.h"
#include "runtime/core/try.h"

namespace krait {

class HostBuffer final : public Buffer {
 public:
  static constexpr std::align_val_t kAlignment{256};

  static Result<std::unique_ptr<Buffer>> allocate(std::int64_t bytes) {
    if (bytes < 0) return Status(Code::internal, cat("allocation of ", bytes, " bytes"));
    const auto size = static_cast<std::size_t>(bytes > 0 ? bytes : 1);
    void* memory = ::operator new(size, kAlignment, std::nothrow);
    if (!memory) {
      return Status(Code::out_of_memory, cat("the host has no ", bytes,
                                             " bytes left; use a smaller "
                                             "model, fewer sequences or shorter chunks"));
    }
    return std::unique_ptr<Buffer>(new HostBuffer(memory, bytes));
  }
  ~HostBuffer() override { ::operator delete(memory_, kAlignment); }
  HostBuffer(const HostBuffer&) = delete;
  HostBuffer& operator=(const HostBuffer&) = delete;

  void* memory() const override { return memory_; }
  std::int64_t bytes() const override { return bytes_; }
  std::byte* at(std::int64_t offset) const { return static_cast<std::byte*>(memory_) + offset; }

 private:
  HostBuffer(void* memory, std::int64_t bytes) : memory_(memory), bytes_(bytes) {}
  void* memory_;
  std::int64_t bytes_;
};

/// The part of Device that is the same wherever device memory is host memory.
class HostDevice : public Device {
 public:
  Result<std::unique_ptr<Buffer>> allocate(std::int64_t bytes) override {
    return HostBuffer::allocate(bytes);
  }
  Status upload(const void* from, Buffer& to, std::int64_t offset, std::int64_t bytes) override {
    if (bytes > 0) std::memcpy(at(to, offset), from, static_cast<std::size_t>(bytes));
    return {};
  }
  Status download(const Buffer& from, std::int64_t offset, void* to, std::int64_t bytes) override {
    if (bytes > 0) std::memcpy(to, at(from, offset), static_cast<std::size_t>(bytes));
    return {};
  }
  Status copy(const Buffer& from, std::int64_t from_offset, Buffer& to, std::int64_t to_offset,
              std::int64_t bytes) override {
    if (bytes > 0) {
      std::memmove(at(to, to_offset), at(from, from_offset), static_cast<std::size_t>(bytes));
    }
    return {};
  }
  Status fill_zero(Buffer& buffer, std::int64_t offset, std::int64_t bytes) override {
    if (bytes > 0) std::memset(at(buffer, offset), 0, static_cast<std::size_t>(bytes));
    return {};
  }
  bool uses_host_memory() const override { return true; }
  Status synchronize() override { return {}; }

 private:
  static std::byte* at(const Buffer& buffer, std::int64_t offset) {
    return static_cast<const HostBuffer&>(buffer).at(offset);
  }
};

}  // namespace krait
