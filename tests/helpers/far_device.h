// A device whose memory the host cannot see, as a GPU's: what TensorViews hold are handles, and
// only upload() and download() move bytes. Its kernels are the oracle in float32, and they check
// what the caller promises: shapes, strides, indices, and that every operand lies within its
// buffer. It records runs as lists of calls.
#pragma once

#include <array>
#include <cstring>
#include <string>
#include <vector>

#include "backends/backend.h"
#include "ops/case.h"
#include "runtime/core/try.h"

namespace krait::test {

class FarBuffer final : public Buffer {
 public:
  explicit FarBuffer(std::int64_t bytes) : bytes_(static_cast<std::size_t>(bytes)) {}
  void* memory() const override { return const_cast<FarBuffer*>(this); }
  std::int64_t bytes() const override { return static_cast<std::int64_t>(bytes_.size()); }
  std::byte* at(std::int64_t offset) const {
    return const_cast<std::byte*>(bytes_.data()) + offset;
  }
  bool has(std::int64_t offset, std::int64_t bytes) const {
    return offset >= 0 && bytes >= 0 && bytes <= this->bytes() - offset;
  }

 private:
  std::vector<std::byte> bytes_;
};

class FarDevice final : public Device {
 public:
  const DeviceInfo& info() const override { return info_; }
  std::span<const Kernel> kernels() const override {
    static const std::vector<Kernel> list = [] {
      std::vector<Kernel> kernels;
      for (const Op* op : all_ops()) {
        if (op->view) continue;
        kernels.push_back({op->name, "far", supports, run});
        kernels.back().holds_weights = op == &linear_residual_op;
      }
      return kernels;
    }();
    return list;
  }
  PlanTypes plan_types(Activations) const override { return {}; }
  Result<std::unique_ptr<Buffer>> allocate(std::int64_t bytes) override {
    if (bytes < 0) return Status(Code::internal, cat("allocation of ", bytes, " bytes"));
    return std::unique_ptr<Buffer>(std::make_unique<FarBuffer>(bytes));
  }
  Status upload(const void* from, Buffer& to, std::int64_t offset, std::int64_t bytes) override {
    KRAIT_TRY(inside(to, offset, bytes));
    if (bytes) std::memcpy(far(to).at(offset), from, static_cast<std::size_t>(bytes));
    return {};
  }
  Status download(const Buffer& from, std::int64_t offset, void* to, std::int64_t bytes) override {
    KRAIT_TRY(inside(from, offset, bytes));
    if (bytes) std::memcpy(to, far(from).at(offset), static_cast<std::size_t>(bytes));
    return {};
  }
  Status copy(const Buffer& from, std::int64_t from_offset, Buffer& to, std::int64_t to_offset,
              std::int64_t bytes) override {
    KRAIT_TRY(inside(from, from_offset, bytes));
    return upload(far(from).at(from_offset), to, to_offset, bytes);
  }
  Status fill_zero(Buffer& buffer, std::int64_t offset, std::int64_t bytes) override {
    KRAIT_TRY(inside(buffer, offset, bytes));
    if (bytes) std::memset(far(buffer).at(offset), 0, static_cast<std::size_t>(bytes));
    return {};
  }
  bool uses_host_memory() const override { return false; }
  Status synchronize() override { return {}; }
  Status run(const Kernel& kernel, const Call& call, const Launch& launch) override {
    if (!recording_) return kernel.run(call, launch);
    recording_->push_back({&kernel, call});
    return {};
  }
  Result<std::unique_ptr<Recording>> record(const std::function<Status()>& body) override {
    auto calls = std::make_unique<Calls>(*this);
    recording_ = &calls->list;
    const Status status = body();
    recording_ = nullptr;
    KRAIT_TRY(status);
    ++recordings_;
    return std::unique_ptr<Recording>(std::move(calls));
  }
  /// How many were made.
  int recordings() const { return recordings_; }

 private:
  struct RecordedCall {
    const Kernel* kernel;
    Call call;
  };
  struct Calls final : Recording {
    explicit Calls(Device& owner) : device(owner) {}
    Status replay() override {
      for (const RecordedCall& recorded : list)
        KRAIT_TRY(recorded.kernel->run(recorded.call, {device, {}}));
      return {};
    }
    Device& device;
    std::vector<RecordedCall> list;
  };

  static const FarBuffer& far(const Buffer& buffer) {
    return static_cast<const FarBuffer&>(buffer);
  }
  static Status inside(const Buffer& buffer, std::int64_t offset, std::int64_t bytes) {
    if (far(buffer).has(offset, bytes)) return {};
    return Status(Code::internal,
                  cat(bytes, " bytes at ", offset, " of a buffer of ", buffer.bytes()));
  }
  static std::string supports(const Call&, const Device&) { return {}; }

  /// The view on the host, if it lies within its buffer.
  static Status resolve(TensorView& view, std::string_view op, std::string_view operand) {
    if (!view) return {};
    const auto* buffer = static_cast<const FarBuffer*>(view.memory);
    std::int64_t elements = view.elements() > 0 ? 1 : 0;
    for (int axis = 0; axis < view.rank && elements; ++axis) {
      elements += (view.dim[static_cast<std::size_t>(axis)] - 1) *
                  view.stride[static_cast<std::size_t>(axis)];
    }
    if (!buffer || !buffer->has(view.offset, bytes_of(view.dtype, elements))) {
      return Status(Code::internal, cat("[", op, "] ", operand, " lies outside its buffer"));
    }
    view.memory = buffer->at(0);
    return {};
  }

  static Status run(const Call& device_call, const Launch&) {
    KRAIT_TRY(check(device_call));
    Call call = device_call;
    for (std::size_t i = 0; i < call.op->inputs.size(); ++i) {
      KRAIT_TRY(resolve(call.inputs[i], call.op->name, call.op->inputs[i].name));
    }
    for (std::size_t o = 0; o < call.op->outputs.size(); ++o) {
      KRAIT_TRY(resolve(call.outputs[o], call.op->name, call.op->outputs[o].name));
    }
    KRAIT_TRY(check_indices(call));
    return run_reference(call);
  }

  std::vector<RecordedCall>* recording_ = nullptr;
  int recordings_ = 0;
  DeviceInfo info_{"far", "far", "the oracle in memory of its own", 0};
};

}  // namespace krait::test
