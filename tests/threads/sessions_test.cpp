// What runs concurrently: sessions of one program, plans being made, fingerprints, two programs on
// one device. Run again under the thread sanitizer.
#include "tests/helpers/sessions.h"

#include <set>
#include <thread>

#include "ops/case.h"

namespace krait::test {
namespace {

/// Runs body(0) … body(count − 1), each on a thread of its own.
template <class Body>
void in_parallel(int count, const Body& body) {
  std::vector<std::thread> threads;
  threads.reserve(static_cast<std::size_t>(count));
  for (int i = 0; i < count; ++i) threads.emplace_back([&body, i] { body(i); });
  for (std::thread& thread : threads) thread.join();
}

/// Logits after a prompt and some steps, of different lengths per `seed`.
std::vector<float> run_alone(const Program& program, std::uint32_t seed) {
  Session session = must(Session::create(program, {.slots = 1, .chunk = 8}));
  const Ids ids = text(11 + 7 * seed, seed + 1);
  std::vector<float> all = values(session.prefill(ids));
  for (const std::int32_t id : text(5, seed + 100)) {
    const std::vector<float> step = values(session.step(id));
    all.insert(all.end(), step.begin(), step.end());
  }
  return all;
}

TEST(Threads, SessionsOfOneProgramDoNotDisturbEachOther) {
  constexpr int kSessions = 4;
  // A program of its own, so that the plans are made while the threads run.
  const Program program = must(Program::create(golden_model("mamba-1"), device("cpu")));
  std::vector<std::vector<float>> together(kSessions);
  in_parallel(kSessions, [&](int i) {
    together[static_cast<std::size_t>(i)] = run_alone(program, static_cast<std::uint32_t>(i));
  });
  for (int i = 0; i < kSessions; ++i) {
    EXPECT_EQ(together[static_cast<std::size_t>(i)],
              run_alone(program, static_cast<std::uint32_t>(i)))
        << "session " << i;
  }
}

TEST(Threads, ProgramsOnOneDeviceDoNotDisturbEachOther) {
  const std::shared_ptr<Device> shared = device("cpu");
  const std::vector<std::string> models = {"mamba-1", "falcon-mamba-1"};
  std::vector<std::vector<float>> together(models.size());
  for (const std::string& model : models) golden_model(model);  // loaded before, by one thread
  in_parallel(static_cast<int>(models.size()), [&](int i) {
    const auto at = static_cast<std::size_t>(i);
    together[at] = run_alone(must(Program::create(golden_model(models[at]), shared)), 3);
  });
  for (std::size_t i = 0; i < models.size(); ++i) {
    EXPECT_EQ(together[i], run_alone(must(Program::create(golden_model(models[i]), shared)), 3))
        << models[i];
  }
}

TEST(Threads, FingerprintsAreComputedOnce) {
  const Model model = must(Model::load(goldens() / "models" / "mamba-1"));
  std::vector<std::string> prints(4);
  in_parallel(4, [&](int i) { prints[static_cast<std::size_t>(i)] = must(model.fingerprint()); });
  for (const std::string& print : prints) {
    EXPECT_EQ(print.size(), 32u);
    EXPECT_EQ(print, prints[0]);
  }
}

TEST(Threads, StatesPassBetweenThreads) {
  const Program program = golden_program("cpu");
  const Ids prompt = text(20);
  const State state = [&] {
    Session session = must(Session::create(program, {}));
    must(session.prefill(prompt));
    return must(session.snapshot());
  }();
  std::vector<std::vector<float>> logits(3);
  in_parallel(3, [&](int i) {
    Session session = must(Session::create(program, {}));
    EXPECT_TRUE(is_ok(session.restore(state)));
    logits[static_cast<std::size_t>(i)] = values(session.step(7));
  });
  EXPECT_EQ(logits[1], logits[0]);
  EXPECT_EQ(logits[2], logits[0]);
  EXPECT_EQ(state.position(), 20);
}

TEST(Threads, APlanIsMadeOnceHoweverManyAskForIt) {
  const Program program = must(Program::create(golden_model("mamba-1"), device("cpu")));
  constexpr int kAskers = 4;
  std::vector<std::vector<const Plan*>> plans(kAskers);
  in_parallel(kAskers, [&](int i) {
    for (const std::int64_t tokens : {1, 2, 7, 8, 30}) {
      const Sizes sizes{tokens, 1, 1, 3, tokens == 1};
      plans[static_cast<std::size_t>(i)].push_back(must(program.impl().plan(sizes)).get());
      EXPECT_TRUE(is_ok(program.describe_plan(tokens, 1, 1)));
      EXPECT_GT(program.packed_bytes(), 0);
    }
  });
  for (const auto& asked : plans) EXPECT_EQ(asked, plans[0]);
  EXPECT_EQ(std::set<const Plan*>(plans[0].begin(), plans[0].end()).size(), 4u);
}

TEST(Threads, EagerCallsAndPlansShareADevice) {
  const std::shared_ptr<Device> shared = device("cpu");
  const Program program = must(Program::create(golden_model("mamba-1"), shared));
  const std::vector<float> want = run_alone(program, 2);
  const Op& op = *find_op("selective_scan");
  const Case c{"threads", {{'D', 300}, {'N', 16}, {'G', 1}}, {40, 3}, {}, {{"dt_softplus", 1}}};
  const auto eager = [&] {
    const HostCall host = must(HostCall::make(op, c, {}));
    EXPECT_TRUE(is_ok(run_eager(host.call, *shared)));
    return host.output(0);
  };
  const std::vector<double> scanned = eager();
  in_parallel(3, [&](int i) {
    if (i == 0) {
      EXPECT_EQ(run_alone(program, 2), want);
    } else {
      for (int round = 0; round < 5; ++round) EXPECT_EQ(eager(), scanned);
    }
  });
}

TEST(Threads, DevicesAreOpenedAndClosedAtTheSameTime) {
  in_parallel(4, [&](int i) {
    for (int round = 0; round < 5; ++round) {
      EXPECT_FALSE(list_devices().empty());
      const auto opened = device(i % 2 ? "cpu" : "reference", 1 + round % 3);
      EXPECT_FALSE(opened->kernels().empty());
    }
  });
}

TEST(Threads, SessionsOfDifferentDevicesRunAtTheSameTime) {
  const std::vector<std::string> names = {"cpu", "reference"};
  std::vector<std::vector<float>> together(names.size()), alone;
  for (const std::string& name : names) alone.push_back(run_alone(golden_program(name), 1));
  in_parallel(static_cast<int>(names.size()), [&](int i) {
    const auto at = static_cast<std::size_t>(i);
    together[at] = run_alone(must(Program::create(golden_model("mamba-1"), device(names[at]))), 1);
  });
  EXPECT_EQ(together, alone);
}

}  // namespace
}  // namespace krait::test
