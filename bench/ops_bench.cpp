// Times every kernel of every device on the ops' own cases and on some shapes of real models.
//
//   ops_bench --benchmark_filter='selective_scan/.*avx512/1/'
//
// A name is op/case/types/device/kernel/threads. Counters: GB/s of what must move, Gflop/s and
// Gspecial/s (exponentials, roots, divisions) by the op's cost, ns per element of the first output,
// and the fraction of the bandwidth at which the same device reads as many bytes. Times are the
// device's own: on a GPU, those of many runs in a row, without the host.
#include <algorithm>
#include <benchmark/benchmark.h>
#include <cstdio>
#include <map>
#include <thread>

#include "backends/backend.h"
#include "ops/case.h"
#include "runtime/core/try.h"

namespace krait {
namespace {

/// A call on a device's memory, ready to run again and again.
class Prepared {
 public:
  static Result<Prepared> make(const HostCall& host, const Kernel& kernel, Device& device) {
    Prepared prepared(host.call, kernel, device);
    for (std::size_t i = 0; i < host.call.op->inputs.size(); ++i) {
      TensorView& view = prepared.call_.inputs[i];
      if (!view) continue;
      const WeightLayout* layout =
          kernel.layout ? kernel.layout(host.call, static_cast<int>(i)) : nullptr;
      Status status = layout ? prepared.pack(*layout, view) : prepared.move(view);
      if (!status.ok()) return status;
    }
    for (std::size_t o = 0; o < host.call.op->outputs.size(); ++o) {
      const Output& output = host.call.op->outputs[o];
      TensorView& view = prepared.call_.outputs[o];
      if (!view) continue;
      if (output.role == Role::state) {
        const int input = input_index(*host.call.op, output.like);
        view = prepared.call_.inputs[static_cast<std::size_t>(input)];
      } else if (Status status = prepared.move(view); !status.ok()) {
        return status;
      }
    }
    const std::int64_t bytes = kernel.workspace ? kernel.workspace(prepared.call_, device) : 0;
    if (bytes > 0) {
      prepared.workspace_ = dense_view(nullptr, DType::u8, {bytes});
      if (Status status = prepared.allocate(bytes, prepared.workspace_); !status.ok()) {
        return status;
      }
    }
    return prepared;
  }

  /// Queues one run; between begin_run and end_run of the device, as within a plan.
  Status run() const { return device_->run(*kernel_, call_, Launch{*device_, workspace_}); }

 private:
  Prepared(const Call& call, const Kernel& kernel, Device& device)
      : call_(call), kernel_(&kernel), device_(&device) {}

  Status allocate(std::int64_t bytes, TensorView& view) {
    Result<std::unique_ptr<Buffer>> buffer = device_->allocate(bytes);
    if (!buffer.ok()) return buffer.status();
    view.memory = (*buffer)->memory();
    view.offset = 0;
    buffers_.push_back(std::move(*buffer));
    return {};
  }

  Status move(TensorView& view) {
    std::int64_t last = 1;
    for (int axis = 0; axis < view.rank; ++axis) {
      last += std::max<std::int64_t>(view.dim[axis] - 1, 0) * view.stride[axis];
    }
    const auto* from = view.as<const std::byte>();
    const std::int64_t bytes = view.elements() > 0 ? bytes_of(view.dtype, last) : 0;
    Status status = allocate(bytes, view);
    return status.ok() ? device_->upload(from, *buffers_.back(), 0, bytes) : status;
  }

  Status pack(const WeightLayout& layout, TensorView& view) {
    const std::int64_t bytes = layout.bytes(view);
    std::vector<std::byte> memory(static_cast<std::size_t>(bytes) + 64);
    const auto address = reinterpret_cast<std::uintptr_t>(memory.data());
    std::byte* packed = memory.data() + (64 - address % 64) % 64;
    layout.pack(view, packed);
    view = layout.view(view);
    Status status = allocate(bytes, view);
    return status.ok() ? device_->upload(packed, *buffers_.back(), 0, bytes) : status;
  }

  Call call_;
  const Kernel* kernel_;
  Device* device_;
  TensorView workspace_;
  std::vector<std::unique_ptr<Buffer>> buffers_;
};

/// Keeps a device's threads awake and the device to itself while it lives.
class Running {
 public:
  explicit Running(Device& device) : device_(device) { device_.begin_run(); }
  ~Running() { device_.end_run(); }
  Running(const Running&) = delete;
  Running& operator=(const Running&) = delete;

 private:
  Device& device_;
};

/// The time of runs by the device's own marks. Where it can record, of many in a row: neither the
/// host's work nor the marks count then.
class Stopwatch {
 public:
  static Result<Stopwatch> make(const Prepared& call, Device& device) {
    Stopwatch watch(call);
    KRAIT_TRY(call.run());  // opens what is opened on first need
    KRAIT_TRY(device.synchronize());
    KRAIT_ASSIGN(watch.marks_, device.time_marks(2));
    KRAIT_ASSIGN(watch.recording_, device.record([&watch] { return watch.run(kRecorded); }));
    return watch;
  }
  /// Seconds of one run.
  Result<double> seconds() {
    KRAIT_TRY(recording_ ? recording_->replay() : run(1));
    KRAIT_ASSIGN(const std::vector<double> intervals, marks_->intervals());
    return intervals[0] / (recording_ ? kRecorded : 1);
  }

 private:
  static constexpr int kRecorded = 32;

  explicit Stopwatch(const Prepared& call) : call_(&call) {}
  Status run(int count) {
    KRAIT_TRY(marks_->mark(0));
    for (int i = 0; i < count; ++i) KRAIT_TRY(call_->run());
    return marks_->mark(1);
  }

  const Prepared* call_;
  std::unique_ptr<TimeMarks> marks_;
  std::unique_ptr<Recording> recording_;
};

/// 0 where it is not measured; measured once per size.
double bandwidth_at(Device& device, double bytes) {
  static std::map<std::pair<Device*, double>, double> known;
  const auto [entry, is_new] = known.try_emplace({&device, bytes});
  if (!is_new) return entry->second;
  const Result<double> measured = read_bandwidth(device, static_cast<std::int64_t>(bytes));
  return entry->second = measured.ok() ? *measured : 0;
}

void time_kernel(benchmark::State& state, const Op& op, const Case& c, const CaseTypes& types,
                 const Kernel& kernel, Device& device) {
  const Result<HostCall> host = HostCall::make(op, c, types);
  if (!host.ok()) return state.SkipWithError(host.message().c_str());
  if (const std::string reason = kernel.supports(host->call, device); !reason.empty()) {
    return state.SkipWithError(reason.c_str());
  }
  const Result<Prepared> prepared = Prepared::make(*host, kernel, device);
  if (!prepared.ok()) return state.SkipWithError(prepared.message().c_str());
  std::vector<double> samples;
  {
    const Running running(device);
    Result<Stopwatch> watch = Stopwatch::make(*prepared, device);
    if (!watch.ok()) return state.SkipWithError(watch.message().c_str());
    for (auto _ : state) {
      const Result<double> seconds = watch->seconds();
      if (!seconds.ok()) return state.SkipWithError(seconds.message().c_str());
      state.SetIterationTime(*seconds);
      samples.push_back(*seconds);
    }
  }
  const auto middle = samples.begin() + static_cast<std::ptrdiff_t>(samples.size() / 2);
  std::nth_element(samples.begin(), middle, samples.end());
  const double median = *middle;
  const Cost work = cost(host->call);
  const auto elements = static_cast<double>(host->call.outputs[0].elements());
  state.counters["median_us"] = median * 1e6;
  state.counters["best_us"] = *std::min_element(samples.begin(), samples.end()) * 1e6;
  state.counters["ns/element"] = elements > 0 ? median * 1e9 / elements : 0;
  state.counters["GB/s"] = work.bytes / median * 1e-9;
  state.counters["Gflop/s"] = work.flops / median * 1e-9;
  state.counters["Gspecial/s"] = work.special / median * 1e-9;
  const double bandwidth = bandwidth_at(device, work.bytes);
  if (bandwidth > 0) state.counters["of_bandwidth"] = work.bytes / median / bandwidth;
}

/// Shapes of real models beyond the ops' cases.
std::vector<Case> more_cases(const Op& op) {
  const std::vector<std::pair<std::string_view, double>> soft = {{"dt_softplus", 1}};
  const std::vector<std::pair<std::string_view, double>> silu = {{"activation", 1}};
  if (op.name == "selective_scan") {
    return {{"mamba-130m-512", {{'D', 1536}, {'N', 16}, {'G', 1}}, {512}, {}, soft},
            {"mamba-2.8b-512", {{'D', 5120}, {'N', 16}, {'G', 1}}, {512}, {}, soft},
            {"mamba-130m-steps-8",
             {{'D', 1536}, {'N', 16}, {'G', 1}},
             std::vector<std::int64_t>(8, 1),
             {},
             soft}};
  }
  if (op.name == "causal_conv1d") {
    return {{"mamba-130m-512", {{'D', 1536}, {'K', 4}}, {512}, {}, silu},
            {"mamba-2.8b-512", {{'D', 5120}, {'K', 4}}, {512}, {}, silu}};
  }
  if (op.name == "linear") {
    std::vector<Case> list;
    for (const std::int64_t tokens : {1, 4, 16, 512}) {
      const std::string suffix = "-" + std::to_string(tokens);
      list.push_back({"130m-in" + suffix, {{'I', 768}, {'O', 3072}}, {tokens}, {"bias"}});
      list.push_back({"130m-out" + suffix, {{'I', 1536}, {'O', 768}}, {tokens}, {"bias"}});
      list.push_back({"130m-x" + suffix, {{'I', 1536}, {'O', 80}}, {tokens}, {"bias"}});
      list.push_back({"130m-dt" + suffix, {{'I', 48}, {'O', 1536}}, {tokens}, {"bias"}});
    }
    list.push_back({"130m-head-1", {{'I', 768}, {'O', 50280}}, {1}, {"bias"}});
    return list;
  }
  if (op.name == "rms_norm") {
    return {{"130m-512", {{'D', 768}}, {512}, {"gate"}}, {"130m-1", {{'D', 768}}, {1}, {"gate"}}};
  }
  return {};
}

void register_all() {
  static std::vector<std::shared_ptr<Device>> devices;
  const int cores = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  for (const DeviceInfo& listed : list_devices()) {
    if (listed.backend == "reference") continue;  // never fast
    for (const int threads : {1, cores}) {
      if (threads > 1 && (cores == 1 || listed.backend != "cpu")) continue;
      Result<std::shared_ptr<Device>> device = open_device(listed.name, {.threads = threads});
      if (!device.ok()) {
        std::fprintf(stderr, "%s: %s\n", listed.name.c_str(), device.message().c_str());
        continue;
      }
      devices.push_back(*device);
      Device& opened = **device;
      for (const Op* op : all_ops()) {
        if (op->view) continue;
        std::vector<Case> cases = op->cases();
        for (Case& c : more_cases(*op)) cases.push_back(std::move(c));
        for (const Case& c : cases) {
          if (!c.error.empty()) continue;
          std::vector<CaseTypes> types = {{}};
          if (has_weight(*op)) {
            types = {{DType::f32, DType::f32}, {DType::f32, DType::f16}, {DType::f32, DType::bf16}};
          }
          for (const CaseTypes& type : types) {
            for (const Kernel& kernel : opened.kernels()) {
              if (kernel.op != op->name) continue;
              std::string name = std::string(op->name) + "/" + c.name + "/" + to_string(*op, type) +
                                 "/" + listed.name + "/" + std::string(kernel.name) + "/" +
                                 std::to_string(threads);
              benchmark::RegisterBenchmark(name.c_str(), [op, c, type, &kernel,
                                                          &opened](benchmark::State& state) {
                time_kernel(state, *op, c, type, kernel, opened);
              })->UseManualTime();
            }
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace krait

int main(int argc, char** argv) {
  krait::register_all();
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
