// Every case of every op on every instruction set of this processor, against the float64 oracle;
// then what the cases cannot see: threads, repetition, batches.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <gtest/gtest.h>

#include "backends/backend.h"
#include "backends/cpu/cpu_features.h"
#include "ops/case.h"

namespace krait {
namespace {

std::shared_ptr<Device> open_cpu(int threads) {
  Result<std::shared_ptr<Device>> device = open_device("cpu", {.threads = threads});
  EXPECT_TRUE(device.ok()) << device.message();
  return *device;
}

/// Runs a kernel on the case's own memory, so that a write outside a tensor hits its sentinels.
Status run_in_place(const Kernel& kernel, Device& device, const HostCall& host) {
  Call call = host.call;
  std::vector<std::unique_ptr<Buffer>> buffers;
  for (std::size_t i = 0; i < call.op->inputs.size(); ++i) {
    if (!call.inputs[i] || !kernel.layout) continue;
    const WeightLayout* layout = kernel.layout(host.call, static_cast<int>(i));
    if (!layout) continue;
    buffers.push_back(*device.allocate(layout->bytes(call.inputs[i])));
    layout->pack(call.inputs[i], static_cast<std::byte*>(buffers.back()->memory()));
    call.inputs[i] = layout->view(call.inputs[i]);
    call.inputs[i].memory = buffers.back()->memory();
  }
  TensorView workspace;
  if (const std::int64_t bytes = kernel.workspace ? kernel.workspace(call, device) : 0) {
    buffers.push_back(*device.allocate(bytes));
    workspace = dense_view(buffers.back()->memory(), DType::u8, {bytes});
  }
  device.begin_run();
  Status status = kernel.run(call, Launch{device, workspace});
  device.end_run();
  return status;
}

constexpr DType kWeights[] = {DType::f32,  DType::f16,  DType::bf16, DType::q8_0,
                              DType::q4_0, DType::q4_1, DType::q5_0, DType::q5_1,
                              DType::q4_k, DType::q5_k, DType::q6_k};

std::vector<CaseTypes> types_of(const Op& op) {
  if (!has_weight(op)) return {{}};
  if (op.name == "cast") {
    return {{DType::f32, DType::f32},
            {DType::f32, DType::f16},
            {DType::f32, DType::bf16},
            {DType::f32, DType::f64}};
  }
  std::vector<CaseTypes> types;
  for (const DType weight : kWeights) {
    types.push_back({DType::f32, weight});
    if (op.name == "linear") types.push_back({DType::f32, weight, true});
  }
  return types;
}

/// Products of rounded inputs take some weights, and only where a call allows it.
bool may_refuse(const Kernel& kernel) {
  return kernel.name.starts_with("int8.") || kernel.name.starts_with("bf16.");
}

class CpuConformance : public testing::TestWithParam<const Op*> {};

TEST_P(CpuConformance, MatchesTheOracle) {
  const Op& op = *GetParam();
  const auto device = open_cpu(2);
  int compared = 0;
  for (const Case& c : op.cases()) {
    for (const CaseTypes& types : types_of(op)) {
      if (!c.error.empty() || !can_exist(op, c, types)) continue;
      SCOPED_TRACE(std::string(op.name) + " " + c.name + " " + to_string(op, types));
      Result<HostCall> wanted = HostCall::make(op, c, types);
      ASSERT_TRUE(wanted.ok()) << wanted.message();
      const auto want = wanted->reference();
      for (const Kernel& kernel : device->kernels()) {
        if (kernel.op != op.name) continue;
        const std::string refusal = kernel.supports(wanted->call, *device);
        if (refusal.find("the processor has no ") == 0) continue;
        SCOPED_TRACE(kernel.name);
        if (may_refuse(kernel) && !refusal.empty()) continue;
        EXPECT_EQ(refusal, "");
        Result<HostCall> host = HostCall::make(op, c, types);
        ASSERT_TRUE(host.ok());
        const Status status = run_in_place(kernel, *device, *host);
        ASSERT_TRUE(status.ok()) << status.message();
        const Status sentinels = host->check_sentinels();
        EXPECT_TRUE(sentinels.ok()) << sentinels.message();
        for (std::size_t i = 0; i < op.outputs.size(); ++i) {
          if (!host->call.outputs[i]) continue;
          const double allowed = tolerance(host->call, static_cast<int>(i));
          const double error = relative_error(host->output(static_cast<int>(i)), want[i]);
          EXPECT_LE(error, allowed) << op.outputs[i].name;
          if (std::getenv("KRAIT_TEST_VERBOSE")) {
            printf("%-14s %-22s %-8s %-8s %-6s error/tolerance %.3f\n", op.name.data(),
                   c.name.c_str(), to_string(op, types).c_str(), kernel.name.data(),
                   op.outputs[i].name.data(), error > 0 ? error / allowed : 0);
          }
        }
        ++compared;
      }
    }
  }
  EXPECT_GT(compared, 0);
}

TEST_P(CpuConformance, RefusesWrongCalls) {
  const Op& op = *GetParam();
  for (const Case& c : op.cases()) {
    if (c.error.empty()) continue;
    const Result<HostCall> host = HostCall::make(op, c, {});
    ASSERT_FALSE(host.ok()) << c.name;
    EXPECT_NE(host.message().find(c.error), std::string::npos) << host.message();
  }
}

/// The bytes of all outputs and states of a case after a run with so many threads.
std::vector<std::vector<std::byte>> bytes_after(const Kernel& kernel, Device& device, const Op& op,
                                                const Case& c, const CaseTypes& types) {
  Result<HostCall> host = HostCall::make(op, c, types);
  EXPECT_TRUE(host.ok()) << host.message();
  EXPECT_TRUE(run_in_place(kernel, device, *host).ok());
  std::vector<std::vector<std::byte>> bytes;
  for (const auto& region : host->inputs) {
    if (region) bytes.push_back(region->bytes);
  }
  for (const auto& region : host->outputs) {
    if (region) bytes.push_back(region->bytes);
  }
  return bytes;
}

TEST_P(CpuConformance, SameBitsForAnyNumberOfThreadsAndEveryTime) {
  const Op& op = *GetParam();
  const auto one = open_cpu(1), two = open_cpu(2), three = open_cpu(3);
  for (const Case& c : op.cases()) {
    if (!c.error.empty() || extent(c, 'V') * extent(c, 'D') > 1000000) continue;
    for (const CaseTypes& types : types_of(op)) {
      if (!can_exist(op, c, types)) continue;
      SCOPED_TRACE(c.name + " " + to_string(op, types));
      for (const Kernel& kernel : one->kernels()) {
        Result<HostCall> host = HostCall::make(op, c, types);
        if (kernel.op != op.name || !kernel.supports(host->call, *one).empty()) continue;
        const auto expected = bytes_after(kernel, *one, op, c, types);
        for (Device* device : {one.get(), two.get(), two.get(), three.get()}) {
          EXPECT_EQ(bytes_after(kernel, *device, op, c, types), expected) << kernel.name;
        }
      }
    }
  }
}

std::vector<const Op*> ops_that_compute() {
  std::vector<const Op*> ops;
  for (const Op* op : all_ops()) {
    if (!op->view && !op->fused) ops.push_back(op);
  }
  return ops;
}

INSTANTIATE_TEST_SUITE_P(Ops, CpuConformance, testing::ValuesIn(ops_that_compute()),
                         [](const auto& info) { return std::string(info.param->name); });

/// Sets KRAIT_FORCE_KERNEL while it lives.
struct Forced {
  explicit Forced(const std::string& name) { setenv("KRAIT_FORCE_KERNEL", name.c_str(), 1); }
  ~Forced() { unsetenv("KRAIT_FORCE_KERNEL"); }
};

TEST(CpuKernels, ForcedKernelIsTheOneThatRuns) {
  const auto device = open_cpu(1);
  const Op& op = *find_op("selective_scan");
  const Case c = op.cases().front();
  std::vector<std::string> ran;
  for (const Kernel& kernel : device->kernels()) {
    Result<HostCall> host = HostCall::make(op, c, {});
    ASSERT_TRUE(host.ok());
    if (kernel.op != op.name || !kernel.supports(host->call, *device).empty()) continue;
    const Forced forced("selective_scan:" + std::string(kernel.name));
    std::string chosen;
    ASSERT_TRUE(run_eager(host->call, *device, &chosen).ok());
    EXPECT_EQ(chosen, kernel.name);
    ran.push_back(chosen);
  }
  EXPECT_FALSE(ran.empty());
  EXPECT_EQ(std::unique(ran.begin(), ran.end()), ran.end());
}

TEST(CpuKernels, OtherActivationTypesAreRefusedWithTheReason) {
  const auto device = open_cpu(1);
  const Op& op = *find_op("silu");
  for (const DType type : {DType::f16, DType::bf16, DType::f64}) {
    const Result<HostCall> host = HostCall::make(op, op.cases().front(), {type, type});
    ASSERT_TRUE(host.ok());
    const Result<KernelChoice> choice = choose_kernel(host->call, *device);
    ASSERT_FALSE(choice.ok());
    EXPECT_NE(choice.message().find("x: " + std::string(name(type)) + " is not supported"),
              std::string::npos)
        << choice.message();
  }
}

/// y = op(x) for given values, by every kernel that runs here; calls check(kernel, y).
template <class Check>
void map_values(std::string_view op_name, const std::vector<float>& x, const Check& check) {
  const auto device = open_cpu(1);
  const auto count = static_cast<std::int64_t>(x.size());
  std::vector<float> y(x.size());
  Call call;
  call.op = find_op(op_name);
  call.attrs = default_attrs(*call.op);
  call.inputs[0] = dense_view(const_cast<float*>(x.data()), DType::f32, {count});
  call.outputs[0] = dense_view(y.data(), DType::f32, {count});
  for (const Kernel& kernel : device->kernels()) {
    if (kernel.op != op_name || !kernel.supports(call, *device).empty()) continue;
    SCOPED_TRACE(kernel.name);
    ASSERT_TRUE(kernel.run(call, Launch{*device, {}}).ok());
    check(y);
  }
}

/// |got − want| in units of the last place of float32 at want, subnormals included.
double ulps(float got, double want) {
  const auto rounded = static_cast<float>(want);
  if (!std::isfinite(rounded)) return got == rounded ? 0 : INFINITY;
  const double unit =
      std::max(0x1p-149, std::ldexp(1.0, std::ilogb(rounded == 0 ? 0x1p-149 : rounded) - 23));
  return std::fabs(got - want) / unit;
}

TEST(CpuMath, ExpIsWithinTwoUnitsOverItsWholeRange) {
  std::vector<float> x;
  for (float v = -105; v < 90; v += 0.00137f) x.push_back(v);
  map_values("exp", x, [&](const std::vector<float>& y) {
    double worst = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      // The last float below overflow is not worth an exact boundary.
      if (x[i] > 88.72f && x[i] < 88.73f) continue;
      worst = std::max(worst, ulps(y[i], std::exp(static_cast<double>(x[i]))));
    }
    EXPECT_LE(worst, 2);
  });
}

TEST(CpuMath, ExpAtTheEdges) {
  const std::vector<float> x = {0, -0.0f, -INFINITY, INFINITY, NAN, 1000, -1000, 1e-30f};
  map_values("exp", x, [&](const std::vector<float>& y) {
    EXPECT_EQ(y[0], 1);
    EXPECT_EQ(y[1], 1);
    EXPECT_EQ(y[2], 0);
    EXPECT_EQ(y[3], INFINITY);
    EXPECT_TRUE(std::isnan(y[4]));
    EXPECT_EQ(y[5], INFINITY);
    EXPECT_EQ(y[6], 0);
    EXPECT_EQ(y[7], 1);
  });
}

TEST(CpuMath, SoftplusIsRelativelyExactAndEndsInX) {
  std::vector<float> x;
  for (float v = -80; v < 40; v += 0.00171f) x.push_back(v);
  for (const float v : {20.0f, 20.5f, 100.0f, 1e30f}) x.push_back(v);
  map_values("softplus", x, [&](const std::vector<float>& y) {
    double worst = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      worst = std::max(
          worst, ulps(y[i], std::log1p(std::exp(static_cast<double>(std::min(x[i], 700.0f)))) +
                                std::max(0.0, static_cast<double>(x[i]) - 700)));
      if (x[i] > 20) {
        EXPECT_EQ(y[i], x[i]);
      }
    }
    EXPECT_LE(worst, 4);
  });
  map_values("softplus", {-INFINITY, INFINITY, NAN}, [](const std::vector<float>& y) {
    EXPECT_EQ(y[0], 0);
    EXPECT_EQ(y[1], INFINITY);
    EXPECT_TRUE(std::isnan(y[2]));
  });
}

TEST(CpuMath, SiluAtTheEdges) {
  map_values("silu", {-INFINITY, INFINITY, NAN, 0, -3e38f, 3e38f}, [](const std::vector<float>& y) {
    EXPECT_EQ(y[0], 0);
    EXPECT_EQ(y[1], INFINITY);
    EXPECT_TRUE(std::isnan(y[2]));
    EXPECT_EQ(y[3], 0);
    EXPECT_EQ(y[4], 0);
    EXPECT_EQ(y[5], 3e38f);
  });
}

TEST(CpuLinear, ATokensResultDoesNotDependOnTheOthers) {
  const auto device = open_cpu(2);
  const Op& op = *find_op("linear");
  constexpr std::int64_t kTokens = 101, kOutputs = 150;
  for (const CaseTypes& types : types_of(op)) {
    // An odd number, or a block more than kernels unpack at once.
    const std::int64_t inputs = is_block(types.weight) ? 256 + info(types.weight).block : 83;
    const Case c{"batch", {{'I', inputs}, {'O', kOutputs}}, {kTokens}};
    for (const Kernel& kernel : device->kernels()) {
      Result<HostCall> whole = HostCall::make(op, c, types);
      if (kernel.op != op.name || !kernel.supports(whole->call, *device).empty()) continue;
      ASSERT_TRUE(run_in_place(kernel, *device, *whole).ok());
      const std::vector<double> expected = whole->output(0);
      for (const std::int64_t tokens : {1, 2, 3, 4, 5, 6, 7, 50}) {
        Result<HostCall> part = HostCall::make(op, c, types);
        part->call.inputs[0].dim[0] = part->call.outputs[0].dim[0] = tokens;
        ASSERT_TRUE(run_in_place(kernel, *device, *part).ok());
        const std::vector<double> got = part->output(0);
        EXPECT_TRUE(std::equal(got.begin(), got.end(), expected.begin()))
            << kernel.name << ", " << to_string(op, types) << ", " << tokens << " tokens";
      }
    }
  }
}

TEST(CpuLinear, RoundsWhereACallAllowsItAndTheProcessorCan) {
  const auto device = open_cpu(1);
  const Op& op = *find_op("linear");
  const Case c{"rounded", {{'I', 256}, {'O', 16}}, {3}};
  const auto kernel_of = [&](const CaseTypes& types) {
    const Result<HostCall> host = HostCall::make(op, c, types);
    std::string chosen;
    EXPECT_TRUE(run_eager(host->call, *device, &chosen).ok());
    return chosen;
  };
  const cpu::Features& has = cpu::features();
  for (const CaseTypes& types : types_of(op)) {
    const bool int8 = is_block(types.weight) && (has.avx512_vnni || has.avx_vnni);
    const bool bf16 = types.weight == DType::bf16 && has.avx512_bf16;
    const std::string kernel = kernel_of(types);
    EXPECT_EQ(kernel.starts_with("int8."), types.native && int8) << to_string(op, types);
    EXPECT_EQ(kernel.starts_with("bf16."), types.native && bf16) << to_string(op, types);
  }
}

/// Block types hold a token apart that has an infinity: others keep their results, and of blocks
/// below what a float32 scale can hold nothing is left but zeros.
TEST(CpuLinear, RoundingLeavesOtherTokensAlone) {
  const auto device = open_cpu(1);
  const Op& op = *find_op("linear");
  const Case c{"special", {{'I', 256}, {'O', 40}}, {4}, {"bias"}};
  for (const Kernel& kernel : device->kernels()) {
    Result<HostCall> plain = HostCall::make(op, c, {DType::f32, DType::q4_k, true});
    if (kernel.op != op.name || !kernel.supports(plain->call, *device).empty()) continue;
    ASSERT_TRUE(run_in_place(kernel, *device, *plain).ok());
    Result<HostCall> special = HostCall::make(op, c, {DType::f32, DType::q4_k, true});
    auto* x = special->call.inputs[0].as<float>();
    x[0] = NAN;
    x[256 + 255] = -INFINITY;
    std::fill_n(x + 512, 256, 1e-40f);
    ASSERT_TRUE(run_in_place(kernel, *device, *special).ok());
    const std::vector<double> before = plain->output(0), after = special->output(0);
    for (std::size_t o = 0; o < 40; ++o) {
      EXPECT_TRUE(std::isnan(after[o])) << kernel.name;
      EXPECT_FALSE(std::isfinite(after[40 + o])) << kernel.name;
      EXPECT_LE(std::fabs(after[80 + o]), 1e-36) << kernel.name;
      EXPECT_EQ(after[120 + o], before[120 + o]) << kernel.name;
    }
  }
}

/// With u = 0 and h = 1 a step leaves Ā = exp(dt·A) in the state: within 2 units, and 1.5 roundings
/// of the exponent dt·log2(e)·A; below the normal numbers zero will do.
TEST(CpuScan, TransitionIsTheExponential) {
  const auto device = open_cpu(1);
  const Op& op = *find_op("selective_scan");
  for (const std::int64_t states : {1, 16}) {
    const Case c{.name = "transition",
                 .dims = {{'D', 1024}, {'N', states}, {'G', 1}},
                 .lengths = {1},
                 .omit = {"skip", "z", "dt_bias"},
                 .ranges = {{"u", Range{0, 0}},
                            {"dt", Range{1, 1}},
                            {"A", Range{-110, 88}},
                            {"state", Range{1, 1}}}};
    for (const Kernel& kernel : device->kernels()) {
      Result<HostCall> host = HostCall::make(op, c, {});
      ASSERT_TRUE(host.ok());
      if (kernel.op != op.name || !kernel.supports(host->call, *device).empty()) continue;
      ASSERT_TRUE(run_in_place(kernel, *device, *host).ok());
      const auto* A = host->call.inputs[2].as<const float>();
      const auto* h = host->call.outputs[1].as<const float>();
      double worst = 0;
      for (std::int64_t i = 0; i < 1024 * states; ++i) {
        const double want = std::exp(static_cast<double>(A[i]));
        const double allowed = (4 + 1.5 * std::fabs(A[i])) * 0x1p-24 * want + 0x1p-126;
        worst = std::max(worst, std::fabs(h[i] - want) / allowed);
      }
      EXPECT_LE(worst, 1) << kernel.name << ", " << states << " states";
    }
  }
}

/// h ← Ā h + (1 − Ā) steadily: an error of Ā that does not vanish with dt would show in the limit,
/// magnified by the length of the memory. What float32 allows are the roundings of Ā and of h, half
/// a unit below 1 each, 2^-25, over 1 − Ā ≥ 2e-4.
TEST(CpuScan, LongMemoryKeepsItsLevel) {
  const auto device = open_cpu(1);
  const Op& op = *find_op("selective_scan");
  constexpr std::int64_t kTokens = 40000;
  const Case c{
      .name = "memory",
      .dims = {{'D', 16}, {'N', 16}, {'G', 1}},
      .lengths = {kTokens},
      .omit = {"skip", "z", "dt_bias"},
      .slots = Slots::fresh,
      .ranges = {
          {"u", Range{1, 1}}, {"dt", Range{2e-4, 3e-4}}, {"A", Range{-1, -1}}, {"B", Range{1, 1}}}};
  for (const Kernel& kernel : device->kernels()) {
    Result<HostCall> host = HostCall::make(op, c, {});
    ASSERT_TRUE(host.ok());
    if (kernel.op != op.name || !kernel.supports(host->call, *device).empty()) continue;
    const auto want = host->reference();
    ASSERT_TRUE(run_in_place(kernel, *device, *host).ok());
    EXPECT_LE(relative_error(host->output(1), want[1]), 2 * 0x1p-25 / 2e-4) << kernel.name;
  }
}

TEST(CpuDevice, DescribesItselfAndRefusesSillyThreadCounts) {
  const auto device = open_cpu(3);
  EXPECT_NE(info(*device).description.find("3 threads"), std::string::npos);
  const auto refused = open_device("cpu", {.threads = -1});
  ASSERT_FALSE(refused.ok());
  EXPECT_NE(refused.message().find("threads: expected 0"), std::string::npos);
}

}  // namespace
}  // namespace krait
