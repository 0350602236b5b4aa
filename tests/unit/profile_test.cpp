// Program::prepare and Session::profile: what loading reports, and where the time of a call goes.
#include <set>

#include "tests/helpers/graphs.h"
#include "tests/helpers/sessions.h"

namespace krait {
namespace {

using test::is_error;
using test::is_ok;
using test::must;
using test::text;

class OnDevice : public testing::TestWithParam<std::string> {};

INSTANTIATE_TEST_SUITE_P(Devices, OnDevice, testing::ValuesIn(test::session_devices()),
                         [](const auto& info) { return test::test_name(info.param); });

std::shared_ptr<Device> open(const std::string& name) {
  return name == "far" ? std::make_shared<test::FarDevice>() : test::device(name);
}

TEST_P(OnDevice, PreparingReportsEveryWeightOnce) {
  const Model model = test::golden_model("mamba-1");
  const Program program = must(Program::create(model, open(GetParam())));
  EXPECT_EQ(program.packed_bytes(), 0);
  std::vector<std::int64_t> steps;
  std::int64_t all = 0;
  ASSERT_TRUE(is_ok(program.prepare([&](std::int64_t done, std::int64_t total) {
    steps.push_back(done);
    all = total;
  })));
  ASSERT_FALSE(steps.empty());
  EXPECT_TRUE(std::is_sorted(steps.begin(), steps.end()));
  EXPECT_GT(steps.front(), 0);
  EXPECT_EQ(steps.back(), all);
  // Float32 tensors are float32 on the device, or float64 on the reference.
  EXPECT_GE(all, model.info().bytes);
  EXPECT_LE(all, 2 * model.info().bytes);

  const std::int64_t placed = program.packed_bytes();
  const std::size_t count = steps.size();
  Session session = test::session(program);
  (void)must(session.step(1));
  (void)must(session.prefill(text(5)));
  EXPECT_EQ(program.packed_bytes(), placed) << "a call had to bring weights after all";
  EXPECT_TRUE(is_ok(program.prepare()));
  EXPECT_EQ(steps.size(), count) << "nobody listens any more";
}

TEST_P(OnDevice, AProfileHasEveryNodeOfTheCall) {
  const Program program = test::session_program(GetParam());
  Session session = test::session(program, 3);
  const int slots[] = {0, 2};
  (void)must(session.prefill(text(4), 1));
  for (const std::size_t tokens : {std::size_t{2}, std::size_t{16}}) {
    SCOPED_TRACE(tokens);
    const Profile profile = must(session.profile(text(tokens), slots, 3));
    EXPECT_GT(profile.run_seconds, 0);
    std::set<std::string> ops;
    double bytes = 0;
    for (const ProfiledNode& node : profile.nodes) {
      EXPECT_GE(node.seconds, 0);
      EXPECT_GT(node.bytes, 0) << node.op;
      EXPECT_FALSE(node.kernel.empty());
      ops.insert(node.op);
      bytes += node.bytes;
    }
    // A step of generation ends with the choice of the next token.
    EXPECT_EQ(ops.count("argmax"), tokens == 2 ? 1u : 0u);
    if (tokens == 16) {
      EXPECT_EQ(bytes, must(program.bytes_per_call(16, 2, 2)));
      EXPECT_TRUE(ops.count("embedding"));
    }
    for (const int slot : slots) EXPECT_EQ(session.position(slot), 0);
    EXPECT_EQ(session.position(1), 4);
    EXPECT_EQ(test::slot_values(session, 0),
              std::vector<float>(test::slot_values(session, 0).size()));
  }
}

TEST(Profiles, CountTheTrueSizesAndNameShapes) {
  Session session = test::session(test::golden_program("cpu"));
  const int slot = 0;
  double bytes[2];
  for (const std::size_t tokens : {std::size_t{5}, std::size_t{8}}) {  // one plan serves both
    const Profile profile = must(session.profile(text(tokens), {&slot, 1}, 1));
    double& sum = bytes[tokens == 8];
    sum = 0;
    for (const ProfiledNode& node : profile.nodes) {
      sum += node.bytes;
      if (node.op != "linear") continue;
      EXPECT_NE(node.shapes.find("] -> f32["), std::string::npos) << node.shapes;
      EXPECT_GT(node.flops, 0);
    }
  }
  EXPECT_LT(bytes[0], bytes[1]);
}

TEST(Profiles, OfWrongCallsAreRefused) {
  Session session = test::session(test::golden_program("cpu"), 2, 8);
  const std::vector<int> both = {0, 1};
  const auto refused = [&](std::size_t tokens, const std::vector<int>& slots, int repetitions,
                           std::string_view words) {
    EXPECT_TRUE(
        is_error(session.profile(text(tokens), slots, repetitions), Code::invalid_argument, words));
  };
  refused(3, both, 1, "as many tokens for each of the slots, got 3 tokens and 2 slots");
  refused(0, both, 1, "got 0 tokens");
  refused(2, {}, 1, "0 slots");
  refused(10, both, 1, "at most 8 tokens");
  refused(2, both, 0, "at least 1 run, got 0");
  refused(2, {0, 2}, 1, "slot: expected 0 to 1, got 2");
  refused(2, {0, 0}, 1, "both write slot 0");
}

}  // namespace
}  // namespace krait
