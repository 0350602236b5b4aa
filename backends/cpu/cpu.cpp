// The CPU backend: vector kernels for several instruction sets in one binary, chosen at run time.
#include <deque>
#include <mutex>
#include <utility>

#if defined(__unix__) || defined(__APPLE__)
#include <unistd.h>
#endif

#include "backends/cpu/bandwidth.h"
#include "backends/cpu/cpu_features.h"
#include "backends/cpu/linear_rounded.h"
#include "backends/cpu/panels.h"
#include "backends/host_memory.h"

namespace krait {
namespace cpu {

#define KRAIT_CPU_KERNEL(name) extern const CpuKernel name##_kernel;
#include "backends/cpu/kernels.inc"
#undef KRAIT_CPU_KERNEL

class CpuDevice final : public HostDevice {
 public:
  explicit CpuDevice(int threads);

  const DeviceInfo& info() const override { return info_; }
  std::span<const Kernel> kernels() const override;
  PlanTypes plan_types(Activations) const override { return {DType::f32, DType::f32}; }
  void begin_run() override {
    run_lock_.lock();
    pool_.begin();
  }
  void end_run() override {
    pool_.end();
    run_lock_.unlock();
  }
  int threads() const override { return pool_.threads(); }
  Result<double> read_bandwidth(std::int64_t bytes) override {
    const std::lock_guard lock(run_lock_);
    return measure_read_bandwidth(pool_, bytes);
  }
  ThreadPool& pool() { return pool_; }

 private:
  ThreadPool pool_;
  DeviceInfo info_;
  std::mutex run_lock_;  ///< one plan or eager call at a time
};

namespace {

/// What most kernels demand: float32 activations, and of weights a type that they can widen.
std::string supports_types(const Call& call) {
  const auto refusal = [](std::string_view operand, Role role, const TensorView& view) {
    if (!view || role == Role::index) return std::string();
    if (role != Role::weight) return want_f32(operand, view);
    if (view.dtype == DType::f32 || view.dtype == DType::f16 || view.dtype == DType::bf16 ||
        is_block(view.dtype)) {
      return std::string();
    }
    return cat(operand, ": ", name(view.dtype),
               " is not supported; the CPU kernels take weights in f32, f16, bf16 and in blocks");
  };
  std::string reason;
  for (std::size_t i = 0; i < call.op->inputs.size() && reason.empty(); ++i) {
    reason = refusal(call.op->inputs[i].name, call.op->inputs[i].role, call.inputs[i]);
  }
  for (std::size_t i = 0; i < call.op->outputs.size() && reason.empty(); ++i) {
    reason = refusal(call.op->outputs[i].name, call.op->outputs[i].role, call.outputs[i]);
  }
  return reason;
}

/// The functions that a backend lists, made from a kernel and an instruction set.
template <const CpuKernel& kernel, const Isa& isa, bool Features::*has>
struct Bound {
  static std::string supports(const Call& call, const Device&) {
    if (!(features().*has)) return std::string("the processor has no ") + isa.needs;
    return kernel.supports ? kernel.supports(call) : supports_types(call);
  }
  static Status run(const Call& call, const Launch& launch) {
    kernel.run(call, {isa, static_cast<CpuDevice&>(launch.device).pool(), launch.workspace});
    return {};
  }
  static std::int64_t workspace(const Call& call, const Device&) { return kernel.workspace(call); }

  static Kernel make(std::string_view name) {
    return {kernel.op, name, supports, run, kernel.workspace ? workspace : nullptr, kernel.layout};
  }
};

/// The same for a product of rounded inputs.
template <const RoundedIsa& isa, RoundedTo inputs, bool Features::*has>
struct BoundRounded {
  static std::string supports(const Call& call, const Device&) {
    if (!(features().*has)) return std::string("the processor has no ") + isa.needs;
    std::string reason = supports_types(call);
    return reason.empty() ? rounded_refusal(call, inputs) : reason;
  }
  static Status run(const Call& call, const Launch& launch) {
    linear_rounded(call, isa, static_cast<CpuDevice&>(launch.device).pool(), launch.workspace);
    return {};
  }
  static const WeightLayout* layout(const Call&, int i) {
    return i == 1 ? panel_layout() : nullptr;
  }

  static Kernel make(std::string_view name) {
    return {"linear", name, supports, run, rounded_workspace, layout};
  }
};

/// "avx512", "gemv.avx512"; kept for the life of the process.
std::string_view kernel_name(std::string_view variant, std::string_view isa) {
  if (variant.empty()) return isa;
  static std::deque<std::string> names;
  return names.emplace_back(cat(variant, ".", isa));
}

template <const Isa& isa, bool Features::*has>
void add_kernels(std::vector<Kernel>& list) {
  const std::string_view set = isa.name;
#define KRAIT_CPU_KERNEL(name) \
  list.push_back(Bound<name##_kernel, isa, has>::make(kernel_name(name##_kernel.variant, set)));
#include "backends/cpu/kernels.inc"
#undef KRAIT_CPU_KERNEL
}

std::vector<Kernel> make_kernels() {
  std::vector<Kernel> list;
#define KRAIT_CPU_ROUNDED_ISA(inputs, name)                                          \
  list.push_back(BoundRounded<name##_isa, RoundedTo::inputs, &Features::name>::make( \
      kernel_name(#inputs, #name)));
#include "backends/cpu/rounded_isas.inc"
#undef KRAIT_CPU_ROUNDED_ISA
#define KRAIT_CPU_ISA(name) add_kernels<name##_isa, &Features::name>(list);
#include "backends/cpu/isas.inc"
#undef KRAIT_CPU_ISA
  return list;
}

std::int64_t host_memory() {
#if defined(_SC_PHYS_PAGES)
  const long pages = sysconf(_SC_PHYS_PAGES), bytes = sysconf(_SC_PAGESIZE);
  if (pages > 0 && bytes > 0) return std::int64_t{pages} * bytes;
#endif
  return 0;
}

DeviceInfo describe(int threads) {
  std::string sets;
#define KRAIT_CPU_ISA(isa) \
  if (features().isa) sets += std::string(sets.empty() ? "" : " ") + isa##_isa.name;
#include "backends/cpu/isas.inc"
#undef KRAIT_CPU_ISA
  return {"cpu", "cpu",
          cat(features().name, ", ", threads, threads == 1 ? " thread, " : " threads, ",
              sets.empty() ? "no vector instructions that Krait knows" : sets),
          host_memory()};
}

constexpr int kMaxThreads = 1024;

}  // namespace

CpuDevice::CpuDevice(int threads) : pool_(threads), info_(describe(pool_.threads())) {}

std::span<const Kernel> CpuDevice::kernels() const {
  static const std::vector<Kernel> list = make_kernels();
  return list;
}

}  // namespace cpu

extern const Backend cpu_backend{
    .name = "cpu",
    .devices = [] { return std::vector<DeviceInfo>{cpu::describe(cpu::available_cores())}; },
    .open = [](int, const DeviceOptions& options) -> Result<std::shared_ptr<Device>> {
      if (options.threads < 0 || options.threads > cpu::kMaxThreads) {
        return invalid("threads: expected 0 (one per core) to ", cpu::kMaxThreads, ", got ",
                       options.threads);
      }
      const int wanted = options.threads > 0 ? options.threads : cpu::available_cores();
      return std::shared_ptr<Device>(std::make_shared<cpu::CpuDevice>(wanted));
    },
};

}  // namespace krait
