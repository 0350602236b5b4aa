// Session::greedy: what stepping with the likeliest token gives, without the host in between.
#include <algorithm>

#include "runtime/plan/plan.h"
#include "tests/helpers/graphs.h"
#include "tests/helpers/sessions.h"

namespace krait {
namespace {

using test::Ids;
using test::is_error;
using test::is_ok;
using test::must;
using test::slot_values;
using test::text;

std::int32_t likeliest(std::span<const float> logits) {
  return static_cast<std::int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

class Greedy : public testing::TestWithParam<std::string> {
 protected:
  Program program() const { return test::session_program(GetParam()); }
  Session session(int slots = 1, int chunk = 512) const {
    return test::session(program(), slots, chunk);
  }
  /// What follows `prompt` and `token`, step by step; the state it ends with.
  Ids stepped(const Ids& prompt, std::int32_t token, int count, std::vector<float>& state) const {
    Session alone = session();
    (void)must(alone.prefill(prompt));
    Ids ids;
    for (int i = 0; i < count; ++i) {
      token = likeliest(must(alone.step(token)).values);
      ids.push_back(token);
    }
    state = slot_values(alone, 0);
    return ids;
  }
};

INSTANTIATE_TEST_SUITE_P(Devices, Greedy, testing::ValuesIn(test::session_devices()),
                         [](const auto& info) { return test::test_name(info.param); });

constexpr int kCount = 12;

TEST_P(Greedy, EqualsStepping) {
  // Three sequences, in slots of another order; the other two slots are left alone.
  const Ids prompts[] = {text(7, 1), text(3, 2), text(11, 3)};
  const Ids tokens = {5, 200, 31};
  const int slots[] = {4, 0, 2};
  for (const std::size_t batch : {std::size_t{1}, std::size_t{3}}) {
    SCOPED_TRACE(batch);
    Session s = session(5);
    for (int slot = 0; slot < 5; ++slot) (void)must(s.prefill(text(4, 9), slot));
    for (std::size_t i = 0; i < batch; ++i) {
      ASSERT_TRUE(is_ok(s.reset(slots[i])));
      (void)must(s.prefill(prompts[i], slots[i]));
    }
    const std::vector<float> others[] = {slot_values(s, 1), slot_values(s, 3)};
    const Ids ids =
        must(s.greedy(std::span(tokens).first(batch), std::span(slots).first(batch), kCount));
    ASSERT_EQ(ids.size(), kCount * batch);
    for (std::size_t i = 0; i < batch; ++i) {
      std::vector<float> state;
      const Ids want = stepped(prompts[i], tokens[i], kCount, state);
      Ids got;
      for (std::size_t step = 0; step < kCount; ++step) got.push_back(ids[step * batch + i]);
      EXPECT_EQ(got, want) << "sequence " << i;
      EXPECT_LE(test::rel_l2(slot_values(s, slots[i]), state), 2e-6);
      EXPECT_EQ(s.position(slots[i]), static_cast<std::int64_t>(prompts[i].size()) + kCount);
    }
    EXPECT_EQ(slot_values(s, 1), others[0]);
    EXPECT_EQ(slot_values(s, 3), others[1]);
    EXPECT_EQ(s.position(1), 4);
  }
}

/// Devices record a plan when it runs again, and replay it from then on: in one call as in several,
/// with other calls in between.
TEST_P(Greedy, SeveralCallsGoOnAsOne) {
  const Ids prompt = text(6, 4);
  std::vector<float> state;
  const Ids want = stepped(prompt, 77, kCount, state);
  for (int session_number = 0; session_number < 2; ++session_number) {
    Session s = session(2);
    (void)must(s.prefill(prompt));
    Ids got;
    const int slot = 0;
    for (const int count : {1, 2, 1, 5, 3}) {
      const std::int32_t token = got.empty() ? 77 : got.back();
      const Ids part = must(s.greedy({&token, 1}, {&slot, 1}, count));
      got.insert(got.end(), part.begin(), part.end());
      (void)must(s.step(token, 1));
    }
    EXPECT_EQ(got, want);
    EXPECT_EQ(must(s.step(got.back())).rows, 1) << "the last one has not been consumed";
    EXPECT_EQ(s.position(), 6 + kCount + 1);
  }
}

/// Where there are recordings, of so many steps most are replayed several at a time.
TEST_P(Greedy, ManyStepsEqualFew) {
  constexpr int kMany = 6 * kBurst + 3;
  const Ids prompts[] = {text(5, 7), text(9, 8)};
  const Ids tokens = {65, 3};
  const int slots[] = {1, 0};
  for (const std::size_t batch : {std::size_t{1}, std::size_t{2}}) {
    SCOPED_TRACE(batch);
    const auto run = [&](std::initializer_list<int> counts, std::vector<float>& state) {
      Session s = session(2);
      for (std::size_t i = 0; i < batch; ++i) (void)must(s.prefill(prompts[i], slots[i]));
      Ids all(tokens.begin(), tokens.begin() + static_cast<std::ptrdiff_t>(batch));
      for (const int count : counts) {
        const Ids last(all.end() - static_cast<std::ptrdiff_t>(batch), all.end());
        const Ids ids = must(s.greedy(last, std::span(slots).first(batch), count));
        all.insert(all.end(), ids.begin(), ids.end());
      }
      state = slot_values(s, slots[0]);
      return all;
    };
    std::vector<float> one_state, few_state, again_state;
    const Ids few = run({9, 10, 9, 10, 13}, few_state);
    ASSERT_EQ(few.size(), batch * (kMany + 1));
    EXPECT_EQ(run({kMany}, one_state), few);
    EXPECT_EQ(run({kMany - 9, 9}, again_state), few) << "what was recorded is used again";
    EXPECT_EQ(one_state, few_state);
    EXPECT_EQ(again_state, few_state);
  }
}

TEST(GreedyRecordings, HoldSeveralStepsWhereThatPays) {
  const auto device = std::make_shared<test::FarDevice>();
  const Program program = must(Program::create(test::golden_model("mamba-1"), device));
  Session s = test::session(program);
  const int slot = 0;
  const auto recordings_after = [&](int count) {
    const std::int32_t token = 7;
    (void)must(s.greedy({&token, 1}, {&slot, 1}, count));
    return device->recordings();
  };
  EXPECT_EQ(recordings_after(1), 0);
  EXPECT_EQ(recordings_after(1), 1) << "of one step";
  EXPECT_EQ(recordings_after(4 * kBurst - 1), 1);
  EXPECT_EQ(recordings_after(4 * kBurst), 2) << "and one of several";
  EXPECT_EQ(recordings_after(100 * kBurst), 2);
}

TEST_P(Greedy, TheLogitsOfTheLastStepStay) {
  Session s = session();
  const std::int32_t token = 9;
  const int slot = 0;
  const Ids ids = must(s.greedy({&token, 1}, {&slot, 1}, 3));
  const std::vector<float> logits = must(s.output("logits"));
  ASSERT_EQ(logits.size(), 256u);
  EXPECT_EQ(likeliest(logits), ids.back());
}

TEST_P(Greedy, RecordsWhatWasConsumed) {
  Session s = must(Session::create(program(), {.slots = 2, .record_tokens = true}));
  const Ids prompts[] = {text(3, 5), text(4, 6)};
  for (int slot = 0; slot < 2; ++slot) (void)must(s.prefill(prompts[slot], slot));
  const Ids tokens = {8, 9};
  const int slots[] = {1, 0};
  const Ids ids = must(s.greedy(tokens, slots, 3));
  for (std::size_t i = 0; i < 2; ++i) {
    Ids want = prompts[slots[i]];
    want.insert(want.end(), {tokens[i], ids[i], ids[2 + i]});
    const State state = must(s.snapshot(slots[i]));
    EXPECT_EQ(Ids(state.tokens().begin(), state.tokens().end()), want);
    EXPECT_EQ(state.position(), static_cast<std::int64_t>(want.size()));
  }
}

TEST_P(Greedy, RefusedCallsChangeNothing) {
  Session s = session(3, 2);
  (void)must(s.prefill(text(5)));
  const std::vector<float> before = slot_values(s, 0);
  const auto refused = [&](const Ids& tokens, const std::vector<int>& slots, int count,
                           std::string_view words) {
    EXPECT_TRUE(is_error(s.greedy(tokens, slots, count), Code::invalid_argument, words));
  };
  refused({1}, {3}, 4, "slot: expected 0 to 2, got 3");
  refused({1}, {-1}, 4, "slot: expected 0 to 2, got -1");
  refused({1, 2}, {0, 0}, 4, "segments 0 and 1 both write slot 0");
  refused({256}, {0}, 4, "expected an id from 0 to 255, got 256");
  refused({-1}, {0}, 4, "got -1");
  refused({1}, {0}, 0, "expected 1 to 16777216 steps, got 0");
  refused({1}, {0}, -5, "got -5");
  refused({1}, {0}, (1 << 24) + 1, "steps");
  refused({}, {}, 4, "a token for each of the slots, got 0");
  refused({1, 2}, {0}, 4, "got 2 tokens and 1 slots");
  refused({1, 2, 3}, {0, 1, 2}, 4, "at most 2 sequences; raise SessionOptions::chunk");
  EXPECT_EQ(slot_values(s, 0), before);
  EXPECT_EQ(s.position(), 5);
  EXPECT_EQ(s.position(1), 0);
}

TEST(GreedyGraphs, WithoutAVocabularyHaveNoTokensToFollow) {
  const Program program =
      must(Program::create(test::model_of(test::kSmallSsm), test::device("cpu")));
  Session s = test::session(program);
  const std::int32_t token = 0;
  const int slot = 0;
  EXPECT_TRUE(
      is_error(s.greedy({&token, 1}, {&slot, 1}, 1), Code::invalid_argument, "no vocabulary"));
}

TEST(GreedySessions, ThatWereMovedFromSaySo) {
  Session s = test::session(test::golden_program("cpu"));
  const Session other = std::move(s);
  const std::int32_t token = 0;
  const int slot = 0;
  // NOLINTNEXTLINE(bugprone-use-after-move): that is what this is about
  EXPECT_TRUE(is_error(s.greedy({&token, 1}, {&slot, 1}, 1), Code::invalid_argument, "moved"));
}

}  // namespace
}  // namespace krait
