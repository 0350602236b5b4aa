// The demonstration model on a CUDA device, beyond what every device is tested for: native
// activations, states that travel, memory, and errors that leave everything as it was.
#include <cstdlib>
#include <cstring>

#include "tests/helpers/cuda.h"
#include "tests/helpers/sessions.h"
#include <krait/verify.h>

namespace krait {
namespace {

using test::Ids;
using test::is_error;
using test::is_ok;
using test::must;

/// Sets an environment variable while it lives.
class Environment {
 public:
  explicit Environment(const char* name) : name_(name) { setenv(name, "1", 1); }
  ~Environment() { unsetenv(name_); }
  Environment(const Environment&) = delete;
  Environment& operator=(const Environment&) = delete;

 private:
  const char* name_;
};

class CudaModel : public test::CudaTest {
 protected:
  static std::filesystem::path folder() { return test::assets() / "classics-mamba"; }
  static const Model& model() {
    static const Model loaded = must(Model::load(folder()));
    return loaded;
  }
  static Ids prompt() {
    return must(
        must(model().tokenizer()).encode("It was a dark and stormy night, and the captain"));
  }
  Program program(Activations activations = Activations::exact) {
    return must(Program::create(model(), shared(), {activations}));
  }
  /// The likeliest continuation of slot 0.
  static Ids follow(Session& session, std::int32_t token, int count) {
    const int slot = 0;
    return must(session.greedy({&token, 1}, {&slot, 1}, count));
  }
};

TEST_F(CudaModel, NativeActivationsStayNearTheGolden) {
  const VerifyReport report =
      must(verify(program(Activations::native), folder() / "expected.safetensors"));
  ASSERT_EQ(report.modes.size(), 3u);
  for (const VerifyMode& mode : report.modes) {
    EXPECT_EQ(mode.activations, "native");
    EXPECT_LE(mode.rel_l2, 2e-2) << mode.mode;
  }
}

TEST_F(CudaModel, AStateMovesToTheCpuAndBackWithTheSameText) {
  constexpr int kCount = 20;
  const Program there = program();
  const Program here = must(Program::create(model(), test::device("cpu")));
  Session whole = test::session(there);
  (void)must(whole.prefill(prompt()));
  const Ids want = follow(whole, 11, 3 * kCount);

  Session first = test::session(there);
  (void)must(first.prefill(prompt()));
  Ids got = follow(first, 11, kCount);
  Session second = test::session(here);
  ASSERT_TRUE(is_ok(second.restore(must(first.snapshot()))));
  const Ids on_cpu = follow(second, got.back(), kCount);
  got.insert(got.end(), on_cpu.begin(), on_cpu.end());
  Session third = test::session(there);
  ASSERT_TRUE(is_ok(third.restore(must(second.snapshot()))));
  const Ids back = follow(third, got.back(), kCount);
  got.insert(got.end(), back.begin(), back.end());
  EXPECT_EQ(got, want);
  EXPECT_EQ(third.position(), whole.position());
}

TEST_F(CudaModel, MemoryIsConstantOverTenThousandSteps) {
  Session session = test::session(program());
  std::int32_t token = must(session.prefill(prompt())).rows ? 11 : 0;
  std::int64_t bytes = 0, free = 0;
  for (int part = 0; part < 10; ++part) {
    token = follow(session, token, 1000).back();
    if (part == 0) {
      bytes = session.memory_bytes();
      free = device().free_memory();
      EXPECT_GT(free, 0);
    }
    EXPECT_EQ(session.memory_bytes(), bytes);
    EXPECT_GE(device().free_memory(), free) << "after " << 1000 * (part + 1) << " steps";
  }
}

TEST_F(CudaModel, RunsAgreeBitForBit) {
  for (const Activations activations : {Activations::exact, Activations::native}) {
    std::vector<float> first;
    for (int run = 0; run < 3; ++run) {
      Session session = test::session(program(activations), 3);
      const Ids ids = test::text(300);
      const Segment segments[] = {{ids, -1, 0}, {std::span(ids).first(7), -1, 1}, {ids, -1, 2}};
      std::vector<float> all = test::values(session.forward(segments));
      const int slots[] = {0, 1, 2};
      const Ids tokens = {1, 2, 3};
      (void)must(session.greedy(tokens, slots, 20));
      for (const int slot : slots) {
        const std::vector<float> state = test::slot_values(session, slot);
        all.insert(all.end(), state.begin(), state.end());
      }
      if (run == 0) first = all;
      ASSERT_EQ(all.size(), first.size());
      EXPECT_EQ(std::memcmp(all.data(), first.data(), all.size() * sizeof(float)), 0)
          << name(activations) << ", run " << run;
    }
  }
}

TEST_F(CudaModel, WithoutMemoryACallFailsAndItsStatesStay) {
  constexpr int kTokens = 1 << 16;  // some hundred MiB of activations
  const Program on_device = program();
  Session session = must(Session::create(on_device, {.slots = 1, .chunk = kTokens}));
  (void)must(session.prefill(prompt()));
  const std::vector<float> before = test::slot_values(session, 0);
  {
    std::vector<std::unique_ptr<Buffer>> taken;
    for (std::int64_t bytes = std::int64_t{1} << 30; bytes >= 4 << 20; bytes /= 4) {
      for (;;) {
        Result<std::unique_ptr<Buffer>> more = device().allocate(bytes);
        if (!more.ok()) {
          EXPECT_TRUE(is_error(more, Code::out_of_memory, "allocating"));
          break;
        }
        taken.push_back(std::move(*more));
      }
    }
    const Ids ids(kTokens, 5);
    EXPECT_TRUE(is_error(session.prefill(ids), Code::out_of_memory, "allocating"));
    EXPECT_EQ(session.position(), static_cast<std::int64_t>(prompt().size()));
  }
  EXPECT_EQ(test::slot_values(session, 0), before);
  Session other = test::session(on_device);
  (void)must(other.prefill(prompt()));
  EXPECT_EQ(follow(session, 11, 20), follow(other, 11, 20));
}

/// Kernel by kernel, with names for a profiler, it is the same work.
TEST_F(CudaModel, WatchedKernelsComputeTheSame) {
  Session plain = test::session(program());
  (void)must(plain.prefill(prompt()));
  const Ids want = follow(plain, 11, 10);
  for (const char* variable : {"KRAIT_SYNC", "KRAIT_NVTX"}) {
    const Environment set(variable);
    const auto watched = must(open_device("cuda"));
    Session session = test::session(must(Program::create(model(), watched)));
    (void)must(session.prefill(prompt()));
    EXPECT_EQ(follow(session, 11, 10), want) << variable;
    EXPECT_EQ(test::slot_values(session, 0), test::slot_values(plain, 0)) << variable;
  }
}

TEST_F(CudaModel, ReadBandwidthIsMeasuredOnce) {
  for (const std::int64_t bytes : {std::int64_t{1} << 20, std::int64_t{1} << 30}) {
    const double rate = must(read_bandwidth(device(), bytes));
    EXPECT_GT(rate, 1e10);
    EXPECT_LT(rate, 1e14);
    EXPECT_EQ(must(read_bandwidth(device(), bytes)), rate);
    std::printf("%lld bytes: %.0f GB/s\n", static_cast<long long>(bytes), rate * 1e-9);
  }
}

}  // namespace
}  // namespace krait
