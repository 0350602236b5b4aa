// The reference backend: every op in float64, by the oracle that defines it. Never fast, always
// complete.
#include "backends/host_memory.h"
#include "ops/case.h"
#include "runtime/core/convert.h"

namespace krait {
namespace {

std::string always(const Call&, const Device&) {
  return {};
}
Status run(const Call& call, const Launch&) {
  return run_reference(call);
}

/// Weights are unpacked to float64 once, instead of at every call.
const WeightLayout* weights_as_f64(const Call& call, int i);

std::vector<Kernel> make_kernels() {
  std::vector<Kernel> kernels;
  for (const Op* op : all_ops()) {
    if (op->view) continue;
    kernels.push_back({op->name, "float64", always, run, nullptr, weights_as_f64});
  }
  return kernels;
}

const WeightLayout kFloat64{
    .name = "f64",
    .bytes = [](const TensorView& stored) { return stored.elements() * 8; },
    .view =
        [](const TensorView& stored) { return dense_view(nullptr, DType::f64, shape_of(stored)); },
    .pack =
        [](const TensorView& stored, std::byte* packed) {
          (void)convert(stored, dense_view(packed, DType::f64, shape_of(stored)));
        },
};

const WeightLayout* weights_as_f64(const Call& call, int i) {
  if (call.op == &cast_op) return nullptr;  // its operand may be an activation
  return call.op->inputs[static_cast<std::size_t>(i)].role == Role::weight ? &kFloat64 : nullptr;
}

class ReferenceDevice final : public HostDevice {
 public:
  const DeviceInfo& info() const override { return info_; }
  std::span<const Kernel> kernels() const override {
    static const std::vector<Kernel> list = make_kernels();
    return list;
  }
  PlanTypes plan_types(Activations) const override { return {DType::f64, DType::f64}; }

 private:
  DeviceInfo info_{"reference", "reference", "float64 in plain loops, for comparison only", 0};
};

}  // namespace

extern const Backend reference_backend{
    .name = "reference",
    .devices = [] { return std::vector<DeviceInfo>{ReferenceDevice().info()}; },
    .open = [](int, const DeviceOptions&) -> Result<std::shared_ptr<Device>> {
      return std::shared_ptr<Device>(std::make_shared<ReferenceDevice>());
    },
};

}  // namespace krait
