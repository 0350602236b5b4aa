// Times every kernel of every device on the ops' own cases and on some shapes of real models.
//
//   ops_bench --benchmark_filter='selective_scan/.*avx512/1/'
//
// A name is op/case/types/device/kernel/threads. Counters: GB/s of what must move, Gflop/s and
// Gspecial/s (exponentials, roots, divisions) by the op's cost, ns per element of the first output,
// and the fraction of the bandwidth at which the same device reads as many bytes (its own argmax
// over one constant buffer).
#include <algorithm>
#include <benchmark/benchmark.h>
#include <chrono>
#include <cstdio>
#include <functional>
#include <map>
#include <thread>

#include "backends/backend.h"
#include "ops/case.h"

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

  /// One run, waited for; between begin_run and end_run of the device, as within a plan.
  Status run() const {
    Status status = kernel_->run(call_, Launch{*device_, workspace_});
    return status.ok() ? device_->synchronize() : status;
  }

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

double seconds_of(const std::function<void()>& body) {
  const auto start = std::chrono::steady_clock::now();
  body();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// Bytes per second at which a device reads a buffer of about so many bytes; measured once, between
/// begin_run and end_run; 0 where kernels do not read host memory.
double read_bandwidth(Device& device, double bytes) {
  static std::map<std::pair<Device*, std::int64_t>, double> known;
  constexpr std::int64_t kRows = 64;
  std::int64_t width = 256;
  while (static_cast<double>(width * kRows * 4) < bytes) width = width * 5 / 4;
  double& result = known[{&device, width}];
  if (result > 0) return result;
  const Op& op = *find_op("argmax");
  std::vector<float> values(static_cast<std::size_t>(kRows * width), 1.0f);
  std::vector<std::int32_t> ids(kRows);
  Call call;
  call.op = &op;
  call.inputs[0] = dense_view(values.data(), DType::f32, {kRows, width});
  call.outputs[0] = dense_view(ids.data(), DType::i32, {kRows});
  const Result<KernelChoice> choice = choose_kernel(call, device);
  if (!choice.ok() || !device.uses_host_memory()) return 0;
  const Launch launch{device, {}};
  const auto run = [&] { (void)choice->kernel->run(call, launch); };
  double best = 1;
  double spent = 0;
  for (int i = 0; i < 200 && (spent < 0.05 || i < 5); ++i) {
    const double seconds = seconds_of(run);
    best = std::min(best, seconds);
    spent += seconds;
  }
  return result = static_cast<double>(kRows * width * 4) / best;
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
  const Running running(device);
  (void)prepared->run();
  for (auto _ : state) {
    Status status;
    const double seconds = seconds_of([&] { status = prepared->run(); });
    if (!status.ok()) return state.SkipWithError(status.message().c_str());
    state.SetIterationTime(seconds);
    samples.push_back(seconds);
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
  const double bandwidth = read_bandwidth(device, work.bytes);
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
