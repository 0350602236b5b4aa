// Plans: where values lie, which kernels run, what the description tells, and that running one
// allocates nothing.
#include "runtime/plan/plan.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <string>
#include <vector>

#include "backends/host_memory.h"
#include "runtime/plan/execution.h"
#include "runtime/session/program.h"
#include "tests/helpers/count_allocations.h"
#include "tests/helpers/devices.h"
#include "tests/helpers/far_device.h"
#include "tests/helpers/graphs.h"
#include "tests/helpers/run_graph.h"

namespace krait {
namespace {

using test::device;
using test::golden_program;
using test::GraphRun;
using test::is_error;
using test::is_ok;
using test::kSmallSsm;
using test::must;

// ---- sizes
// ---------------------------------------------------------------------------------------

TEST(Bucket, RoundsUpToPowersOfTwo) {
  EXPECT_EQ(bucket({5, 3, 2, 7, false}), (Sizes{8, 4, 2, 7, false}));
  EXPECT_EQ(bucket({1, 1, 0, 3, true}), (Sizes{1, 1, 0, 3, true}));
  EXPECT_EQ(bucket({0, 0, 0, 3, true}), (Sizes{1, 1, 0, 3, true}));
  EXPECT_EQ(bucket({513, 64, 65, 3, false}), (Sizes{1024, 64, 128, 3, false}));
  for (std::int64_t n = 1; n < 100; ++n) {
    const Sizes b = bucket({n, n, n, 1, false});
    EXPECT_GE(b.tokens, n);
    EXPECT_LT(b.tokens, 2 * n);
  }
}

TEST(Resolve, ReplacesSymbols) {
  const Sizes sizes{5, 3, 2, 7, false};
  EXPECT_EQ(to_string(resolve({dims::T, 8}, sizes)), "[5, 8]");
  EXPECT_EQ(to_string(resolve({dims::starts}, sizes)), "[4]");
  EXPECT_EQ(to_string(resolve({dims::M, 8}, sizes)), "[2, 8]");
  EXPECT_EQ(to_string(resolve({dims::C, 8, 3}, sizes)), "[7, 8, 3]");
  EXPECT_EQ(to_string(resolve({4, 8}, sizes)), "[4, 8]");
}

TEST(PlanCache, CallsOfOneBucketShareAPlan) {
  Program::Impl& program = golden_program("reference").impl();
  const auto plan = [&](Sizes sizes) { return must(program.plan(sizes)); };
  EXPECT_EQ(plan({5, 3, 1, 4, false}), plan({8, 4, 1, 4, false}));
  EXPECT_NE(plan({5, 3, 1, 4, false}), plan({9, 3, 1, 4, false}));
  EXPECT_NE(plan({5, 3, 1, 4, false}), plan({5, 3, 2, 4, false}));
  EXPECT_NE(plan({5, 3, 1, 4, false}), plan({5, 3, 1, 5, false})) << "states of other slots";
  EXPECT_NE(plan({4, 4, 1, 4, false}), plan({4, 4, 1, 4, true})) << "decoding is planned apart";
}

TEST(PlanSizes, ThatNothingCanHaveAreRefused) {
  const Program program = golden_program("reference");
  const std::int64_t huge = std::int64_t{1} << 40;
  for (const std::int64_t wrong : {std::int64_t{-1}, huge, INT64_MAX, INT64_MIN}) {
    EXPECT_TRUE(is_error(program.describe_plan(wrong, 1, 1), Code::invalid_argument, "sizes"));
    EXPECT_TRUE(is_error(program.describe_plan(1, wrong, 1), Code::invalid_argument, "sizes"));
    EXPECT_TRUE(is_error(program.kernels(1, 1, wrong), Code::invalid_argument, "sizes"));
    EXPECT_TRUE(is_error(program.bytes_per_call(wrong, 1, 1), Code::invalid_argument, "sizes"));
  }
}

TEST(PlanSizes, ValuesThatOutgrowTheAddressSpaceAreRefused) {
  GraphRun run(must(ir::parse("graph g {\n  input x: f32[T, 1048576]\n"
                              "  %0: f32[T, 1048576] = exp(x: x)\n  output y = %0\n}\n")),
               device("reference"));
  EXPECT_TRUE(is_error(run.plan({1 << 30, 1, 1, 1, false}), Code::invalid_argument,
                       "f32[T, 1048576] of graph g is too large in a call of 1073741824 tokens"));
  EXPECT_TRUE(is_ok(run.plan({16, 1, 1, 1, false})));
}

// ---- places
// --------------------------------------------------------------------------------------

/// Where a value's bytes lie in the arena and during which steps they must stay, by brute force.
struct Span {
  std::int64_t begin, end;
  int first, last;
  std::string what;
};

std::vector<Span> spans_of(const Plan& plan) {
  const ir::Graph& graph = *plan.graph;
  const auto base = [&](ir::Id id) {
    while (plan.homes[static_cast<std::size_t>(id)].place == Home::Place::view) {
      id = plan.homes[static_cast<std::size_t>(id)].view_of;
    }
    return id;
  };
  std::vector<Span> spans;
  for (ir::Id id = 0; id < static_cast<ir::Id>(graph.values.size()); ++id) {
    const Home& home = plan.homes[static_cast<std::size_t>(id)];
    if (home.place != Home::Place::arena) continue;
    const Type& type = graph[id].type;
    const std::int64_t bytes = bytes_of(type.dtype, resolve(type.shape, plan.sizes).elements());
    Span span{home.offset, home.offset + bytes, -1, -1, "value " + std::to_string(id)};
    for (int s = 0; s < static_cast<int>(plan.steps.size()); ++s) {
      const ir::Node& node =
          graph.nodes[static_cast<std::size_t>(plan.steps[static_cast<std::size_t>(s)].node)];
      if (std::count(node.outputs.begin(), node.outputs.end(), id)) span.first = span.last = s;
      for (const ir::Id input : node.inputs) {
        if (input != ir::kNone && base(input) == id) span.last = s;
      }
    }
    for (const ir::Output& output : graph.outputs) {
      if (base(output.value) == id) span.last = 1 << 20;
    }
    spans.push_back(span);
  }
  for (int s = 0; s < static_cast<int>(plan.steps.size()); ++s) {
    const Step& step = plan.steps[static_cast<std::size_t>(s)];
    spans.push_back({step.workspace_offset, step.workspace_offset + step.workspace_bytes, s, s,
                     "workspace of step " + std::to_string(s)});
  }
  return spans;
}

TEST(PlanPlaces, NothingAliveOverlaps) {
  for (const std::string& name : test::device_names()) {
    for (const char* model : {"mamba-1", "falcon-mamba-1"}) {
      for (const Sizes sizes :
           {Sizes{1, 1, 1, 3, true}, {64, 4, 64, 6, false}, {8, 2, 0, 4, false}}) {
        const auto plan = must(golden_program(name, model).impl().plan(sizes));
        const std::vector<Span> spans = spans_of(*plan);
        for (const Span& a : spans) {
          EXPECT_LE(a.end, plan->arena_bytes) << a.what;
          for (const Span& b : spans) {
            if (&a == &b || a.begin == a.end || b.begin == b.end) continue;
            const bool together = a.first <= b.last && b.first <= a.last;
            EXPECT_FALSE(together && a.begin < b.end && b.begin < a.end)
                << a.what << ", " << b.what;
          }
        }
      }
    }
  }
}

TEST(PlanPlaces, ViewsLieInWhatTheyLookAt) {
  GraphRun run(must(ir::parse(kSmallSsm)), device("reference"));
  const auto plan = must(run.plan({8, 2, 2, 4, false}));
  const auto arena = must(device("reference")->allocate(plan->arena_bytes));
  std::vector<std::unique_ptr<Buffer>> states;
  std::vector<Buffer*> pointers;
  for (std::size_t i = 0; i < plan->states.size(); ++i) {
    states.push_back(must(device("reference")->allocate(4096)));
    pointers.push_back(states.back().get());
  }
  Execution execution(plan, pointers, arena.get());
  for (const std::int64_t tokens : {8, 5, 1, 0}) {
    const Sizes sizes{tokens, 2, 2, 4, false};
    ASSERT_TRUE(is_ok(execution.prepare(sizes)));
    int views = 0;
    for (const ir::Node& node : plan->graph->nodes) {
      const TensorView& y = execution.view(node.outputs[0]);
      EXPECT_EQ(shape_of(y), resolve((*plan->graph)[node.outputs[0]].type.shape, sizes));
      if (!node.op->view) continue;
      ++views;
      const TensorView& x = execution.view(node.inputs[0]);
      EXPECT_EQ(y.memory, x.memory);
      EXPECT_EQ(y.stride[0], x.stride[0]);
      const auto offset = node.op->name == "slice" ? static_cast<std::int64_t>(node.attrs[0]) : 0;
      EXPECT_EQ(y.offset, x.offset + 4 * offset);
    }
    EXPECT_EQ(views, 6);
    // A state's new version is the state.
    for (const ir::Node& node : plan->graph->nodes) {
      if (input_index(*node.op, "state") < 0) continue;
      EXPECT_EQ(
          execution.view(node.outputs[1]).memory,
          execution.view(node.inputs[static_cast<std::size_t>(input_index(*node.op, "state"))])
              .memory);
    }
  }
}

TEST(PlanPlaces, OutputsThatNoCallComputesAreRefused) {
  const auto refuse = [](const std::string& body, std::string_view message) {
    GraphRun run(must(ir::parse("graph g {\n  input x: f32[T, 8]\n" + body + "}\n")),
                 device("reference"));
    EXPECT_TRUE(is_error(run.plan({1, 1, 1, 1, false}), Code::unsupported, message));
  };
  refuse("  weight w: f32[8]\n  output y = w\n", "output y of graph g is not computed by a call");
  refuse("  weight w: f32[8]\n  const %0: f32[8] = exp(x: w)\n  output y = %0\n",
         "output y of graph g is not computed by a call");
  refuse("  state s: f32[C, 8]\n  output y = s\n", "output y of graph g is not computed by a call");
}

TEST(PlanPlaces, AnInputMayBeAnOutput) {
  GraphRun run(must(ir::parse("graph g {\n  input x: f64[T, 2]\n  output y = x\n}\n")),
               device("reference"));
  EXPECT_EQ(run({2}).at("y"), test::NamedWeights::values("x0", 4));
}

// ---- kernels
// -------------------------------------------------------------------------------------

TEST(PlanKernels, EveryNodeThatComputesHasOne) {
  for (const std::string& name : test::device_names()) {
    const Program program = golden_program(name);
    const auto plan = must(program.impl().plan({16, 1, 1, 3, false}));
    std::size_t computing = 0;
    for (const ir::Node& node : plan->graph->nodes) computing += !node.constant && !node.op->view;
    EXPECT_EQ(plan->steps.size(), computing);
    for (const Step& step : plan->steps) {
      EXPECT_EQ(step.kernel->op, plan->graph->nodes[static_cast<std::size_t>(step.node)].op->name);
      EXPECT_GT(step.cost.bytes, 0);
    }
  }
}

TEST(PlanKernels, TheDescriptionTellsKernelsBytesAndArena) {
  const std::string text = must(golden_program("reference").describe_plan(16, 1, 1));
  const auto has = [&](std::string_view part) {
    EXPECT_NE(text.find(part), std::string::npos) << part << " in\n" << text;
  };
  has("plan of mamba on reference: 16 tokens, 1 sequences, 1 rows of logits\n");
  // 16 tokens of 64 channels in float64, 256 rows of 64 weights: ids and rows are counted once.
  has("  embedding -> float64  f64[T, 64]  ");
  has("  x_proj_scan -> float64  f64[T, 128], f32[C, 128, 16]  ");
  has("  norm_linear -> float64  f64[M, 256]  ");
  has(" bytes, 33024 flops");  // of the head: 4 · 64 for the norm, 2 · 64 · 256
  has("  arena ");
  const auto plan = must(golden_program("reference").impl().plan({16, 1, 1, 1, false}));
  has("arena " + std::to_string(plan->arena_bytes) + " bytes; ");
  double bytes = 0;
  for (const Step& step : plan->steps) bytes += step.cost.bytes;
  has(std::to_string(static_cast<std::int64_t>(bytes)) + " bytes moved at least");
  EXPECT_EQ(must(golden_program("reference").bytes_per_call(16, 1, 1)), bytes);
}

TEST(PlanKernels, AreListedOncePerOp) {
  EXPECT_EQ(must(golden_program("reference").kernels(16, 1, 1)),
            "embedding float64, in_proj_conv1d float64, x_proj_scan float64, "
            "linear_residual float64, gather_rows float64, norm_linear float64");
}

/// A device with three kernels for exp: one that never can, one for decoding, one for the rest.
class PickyDevice final : public HostDevice {
 public:
  const DeviceInfo& info() const override { return info_; }
  std::span<const Kernel> kernels() const override { return kKernels; }
  PlanTypes plan_types(Activations) const override { return {}; }

 private:
  static Status run(const Call& call, const Launch& launch) {
    if (launch.workspace && launch.workspace.dim[0] < 64) {
      return Status(Code::internal, "the workspace is smaller than asked for");
    }
    return run_reference(call);
  }
  static std::int64_t workspace(const Call& call, const Device&) {
    return 64 * call.inputs[0].dim[0];
  }
  static inline const Kernel kKernels[] = {
      {"exp", "never", [](const Call&, const Device&) { return std::string("it is Monday"); }, run},
      {"exp", "step",
       [](const Call& call, const Device&) {
         return std::string(call.steps ? "" : "some sequence has several tokens");
       },
       run},
      {"exp", "any", [](const Call&, const Device&) { return std::string(); }, run, workspace}};
  DeviceInfo info_{"picky", "picky", "", 0};
};

const char* const kExp =
    "graph g {\n  input x: f32[T, 2]\n  %0: f32[T, 2] = exp(x: x)\n  output y = %0\n}\n";

TEST(PlanKernels, TheFirstThatSupportsTheCallRunsAndRefusalsAreKept) {
  GraphRun run(must(ir::parse(kExp)), std::make_shared<PickyDevice>());
  const auto prefill = must(run.plan({4, 2, 1, 2, false}));
  EXPECT_EQ(prefill->steps[0].kernel->name, "any");
  EXPECT_EQ(
      prefill->steps[0].refused,
      (std::vector<std::string>{"never: it is Monday", "step: some sequence has several tokens"}));
  EXPECT_EQ(prefill->steps[0].workspace_bytes, 256);
  EXPECT_EQ(describe(*prefill), R"(plan of g on picky: 4 tokens, 2 sequences, 1 rows of logits
  exp -> any  f32[T, 2]  64 bytes, 0 flops, workspace 256
      not never: it is Monday
      not step: some sequence has several tokens
  arena 768 bytes; 64 bytes moved at least
)");
  const auto decode = must(run.plan({2, 2, 1, 2, true}));
  EXPECT_EQ(decode->steps[0].kernel->name, "step");
  EXPECT_EQ(decode->steps[0].refused, (std::vector<std::string>{"never: it is Monday"}));
  EXPECT_EQ(decode->steps[0].workspace_bytes, 0);
}

TEST(PlanKernels, AWorkspaceIsThereWhenAKernelAskedForIt) {
  GraphRun run(must(ir::parse(kExp)), std::make_shared<PickyDevice>());
  const std::vector<double> x = test::NamedWeights::values("x0", 6);
  const std::vector<double> y = run({3}).at("y");
  for (std::size_t i = 0; i < x.size(); ++i) EXPECT_NEAR(y[i], std::exp(x[i]), 1e-6);
}

TEST(PlanKernels, WithoutAnyThePlanSaysWhy) {
  GraphRun run(must(ir::parse("graph g {\n  input x: f32[T, 2]\n  %0: f32[T, 2] = neg(x: x)\n"
                              "  output y = %0\n}\n")),
               std::make_shared<PickyDevice>());
  EXPECT_TRUE(
      is_error(run.plan({1, 1, 1, 1, false}), Code::unsupported,
               "[neg] no kernel of picky runs this call; the backend has none for this op"));
}

TEST(PlanKernels, ThePredicateOfPassesKnowsWhatTheDeviceHas) {
  const ir::HasKernel has = kernel_predicate(std::make_shared<PickyDevice>());
  const Type type{DType::f32, {dims::T, 8}};
  const Type* const one[] = {&type};
  EXPECT_TRUE(has(*find_op("exp"), one, {}));
  EXPECT_FALSE(has(*find_op("neg"), one, {}));
  const Type* const two[] = {&type, &type};
  EXPECT_FALSE(has(*find_op("exp"), two, {})) << "a call that makes no sense has no kernel";
}

TEST(PlanKernels, AForcedOneIsTheOnlyCandidate) {
  // By a program of its own, since plans are kept.
  const Program program = must(Program::create(test::golden_model("mamba-1"), device("reference")));
  ASSERT_EQ(setenv("KRAIT_FORCE_KERNEL",
                   "selective_scan:float32,dt_proj_scan:float32,x_proj_scan:float32", 1),
            0);
  const auto refused = program.describe_plan(4, 1, 1);
  ASSERT_EQ(setenv("KRAIT_FORCE_KERNEL", "float64,linear:64", 1), 0);
  const auto accepted = program.describe_plan(4, 1, 1);
  unsetenv("KRAIT_FORCE_KERNEL");
  EXPECT_TRUE(is_error(refused, Code::unsupported, "float64: KRAIT_FORCE_KERNEL asks for float32"));
  EXPECT_TRUE(is_ok(accepted));
}

/// Packed layouts exist for what is known beforehand.
TEST(PlanKernels, APackedOperandMustBeAWeight) {
  GraphRun run(must(ir::parse("graph g {\n  input x: f32[T, 8]\n  input w: f32[4, 8]\n"
                              "  %0: f32[T, 4] = linear(x: x, w: w)\n  output y = %0\n}\n")),
               device("reference"));
  EXPECT_TRUE(is_error(run.plan({1, 1, 1, 1, false}), Code::unsupported,
                       "[linear] w: kernel float64 of reference takes only weights here"));
}

// ---- runs
// ----------------------------------------------------------------------------------------

TEST(PlanSteps, OneThatHoldsWeightsMayStartBeforeTheOneBeforeHasItsInputs) {
  const Program program =
      must(Program::create(test::golden_model("mamba-1"), std::make_shared<test::FarDevice>()));
  for (const std::int64_t tokens : {1, 2}) {
    const auto plan = must(program.impl().plan({tokens, tokens, tokens, 4, true}));
    int marked = 0;
    for (std::size_t s = 0; s < plan->steps.size(); ++s) {
      const bool before =
          s + 1 < plan->steps.size() && plan->steps[s + 1].kernel->op == "linear_residual";
      EXPECT_EQ(plan->steps[s].next_first, before) << "step " << s;
      marked += plan->steps[s].next_first;
    }
    EXPECT_GT(marked, 0);
  }
}

TEST(PlanSteps, OfGreedyPlansGatherNoRows) {
  const auto gathers = [](bool greedy) {
    const auto plan = must(golden_program("reference").impl().plan({2, 2, 2, 4, true, greedy}));
    return std::count_if(plan->steps.begin(), plan->steps.end(),
                         [](const Step& step) { return step.kernel->op == "gather_rows"; });
  };
  EXPECT_EQ(gathers(true), 0);
  EXPECT_EQ(gathers(false), 1);
}

TEST(ExecutionRun, OneThatFailsReturnsTheKernelsError) {
  class Broken final : public HostDevice {
   public:
    const DeviceInfo& info() const override { return info_; }
    std::span<const Kernel> kernels() const override {
      static const Kernel list[] = {
          {"exp", "broken", [](const Call&, const Device&) { return std::string(); },
           [](const Call&, const Launch&) { return Status(Code::device_lost, "it fell off"); }}};
      return list;
    }
    PlanTypes plan_types(Activations) const override { return {}; }

   private:
    DeviceInfo info_{"broken", "broken", "", 0};
  };
  GraphRun run(must(ir::parse(kExp)), std::make_shared<Broken>());
  const auto plan = must(run.plan({1, 1, 1, 1, false}));
  const auto arena = must(device("reference")->allocate(plan->arena_bytes));
  Execution execution(plan, {}, arena.get());
  ASSERT_TRUE(is_ok(execution.prepare(plan->sizes)));
  EXPECT_TRUE(is_error(execution.run(), Code::device_lost, "it fell off"));
}

/// The promise of plans: everything was decided and allocated before.
TEST(ExecutionRun, AllocatesNothing) {
  for (const std::string& name : test::device_names()) {
    if (name == "reference") continue;                // its oracle works on copies in float64
    if (!device(name)->uses_host_memory()) continue;  // its driver and recordings do as they like
    SCOPED_TRACE(name);
    Program::Impl& program = golden_program(name).impl();
    for (const Sizes sizes :
         {Sizes{1, 1, 1, 3, true}, {64, 4, 4, 6, false}, {37, 2, 37, 4, false}}) {
      const auto plan = must(program.plan(sizes));
      const auto arena = must(program.device->allocate(plan->arena_bytes));
      std::vector<std::unique_ptr<Buffer>> states;
      std::vector<Buffer*> pointers;
      for (const ir::Id id : plan->states) {
        const Type& type = (*plan->graph)[id].type;
        const std::int64_t bytes =
            bytes_of(type.dtype, resolve(type.shape, plan->sizes).elements());
        states.push_back(must(program.device->allocate(bytes)));
        ASSERT_TRUE(is_ok(program.device->fill_zero(*states.back(), 0, bytes)));
        pointers.push_back(states.back().get());
      }
      Execution execution(plan, pointers, arena.get());
      ASSERT_TRUE(is_ok(execution.prepare(sizes)));
      // The first sequence takes all tokens, or each has one; every id and row is 0.
      const auto write_inputs = [&] {
        ASSERT_TRUE(is_ok(program.device->fill_zero(*arena, 0, plan->arena_bytes)));
        for (std::size_t id = 0; id < plan->graph->values.size(); ++id) {
          const std::string& name = plan->graph->values[id].name;
          if (name != "starts" && name != "slot_in" && name != "slot_out") continue;
          const TensorView& view = execution.view(static_cast<ir::Id>(id));
          for (std::int64_t s = 1; s < view.dim[0]; ++s) {
            const bool counts = sizes.steps || name != "starts";
            const auto value = static_cast<std::int32_t>(counts ? s : sizes.tokens);
            ASSERT_TRUE(is_ok(program.device->upload(&value, *arena, view.offset + 4 * s, 4)));
          }
        }
      };
      Status status;
      for (const char* run : {"first", "second", "third"}) {
        write_inputs();
        EXPECT_EQ(test::count_allocations([&] { status = execution.run(); }), 0) << run;
        EXPECT_TRUE(is_ok(status));
      }
      EXPECT_EQ(test::count_allocations([&] { status = execution.prepare(sizes); }), 0)
          << "asked again for the same sizes";
    }
  }
}

TEST(ExecutionRun, TheCounterOfTheTestAboveCounts) {
  EXPECT_EQ(test::count_allocations([] { ::operator delete(::operator new(10)); }), 1);
  EXPECT_GE(test::count_allocations([] { (void)device("reference")->allocate(100); }), 2);
}

}  // namespace
}  // namespace krait
