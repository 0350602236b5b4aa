// Sessions over language models: however text is cut, batched, forked and discarded, every sequence
// gets the results it has alone; calls that are refused change nothing.
#include <algorithm>
#include <numeric>
#include <random>

#include "tests/helpers/sessions.h"

namespace krait {
namespace {

using test::Ids;
using test::is_error;
using test::is_ok;
using test::must;
using test::rel_l2;
using test::slot_values;
using test::text;
using test::values;

/// Ways to compute the same thing may differ by what float32 rounds: some units of 2⁻²⁴ per layer,
/// relative to the whole vector.
constexpr double kSame = 2e-6;

class SessionOn : public testing::TestWithParam<std::string> {
 protected:
  Program program() const { return test::session_program(GetParam()); }
  Session session(int slots = 1, int chunk = 512) const {
    return test::session(program(), slots, chunk);
  }
  std::vector<float> alone(const Ids& ids) const { return test::logits_after(program(), ids); }
};

INSTANTIATE_TEST_SUITE_P(Devices, SessionOn, testing::ValuesIn(test::session_devices()),
                         [](const auto& info) { return test::test_name(info.param); });

// ---- cutting
// -------------------------------------------------------------------------------------

TEST_P(SessionOn, ChunkedWholeAndStepwiseAgree) {
  const Ids ids = text(41);
  Session whole = session();
  const Segment all{ids, -1, 0};
  const std::vector<float> want = values(whole.forward({&all, 1}, Rows::all));
  ASSERT_EQ(want.size(), 41u * 256);
  const std::vector<float> state = slot_values(whole, 0);
  for (const int chunk : {1, 2, 3, 7, 16, 40, 41, 64}) {
    SCOPED_TRACE(chunk);
    Session chunked = session(1, chunk);
    EXPECT_LE(rel_l2(values(chunked.forward({&all, 1}, Rows::all)), want), kSame);
    EXPECT_LE(rel_l2(slot_values(chunked, 0), state), kSame);
    EXPECT_EQ(chunked.position(), 41);
  }
  Session stepped = session();
  std::vector<float> got;
  for (const std::int32_t id : ids) {
    const std::vector<float> row = values(stepped.step(id));
    got.insert(got.end(), row.begin(), row.end());
  }
  EXPECT_LE(rel_l2(got, want), kSame);
  EXPECT_LE(rel_l2(slot_values(stepped, 0), state), kSame);
}

TEST_P(SessionOn, RowsAreThoseAskedFor) {
  const Ids a = text(5, 1), b = text(3, 2);
  const Segment segments[] = {{a, -1, 0}, {{}, -1, 1}, {b, -1, 2}};
  for (const int chunk : {512, 2}) {
    Session s = session(3, chunk);
    const auto all = values(s.forward(segments, Rows::all));
    const auto last = values(s.forward(segments, Rows::last));
    ASSERT_EQ(all.size(), 8u * 256);
    ASSERT_EQ(last.size(), 2u * 256) << "a segment without tokens has no last row";
    EXPECT_LE(rel_l2(std::span(last).first(256), std::span(all).subspan(4 * 256, 256)), kSame);
    EXPECT_LE(rel_l2(std::span(last).last(256), std::span(all).last(256)), kSame);
    const Logits none = must(s.forward(segments, Rows::none));
    EXPECT_EQ(none.rows, 0);
    EXPECT_EQ(none.vocab, 256);
    EXPECT_TRUE(none.values.empty());
    EXPECT_EQ(s.position(0), 5);
    EXPECT_EQ(s.position(1), 0);
    EXPECT_EQ(s.position(2), 3);
  }
}

TEST_P(SessionOn, NothingToDoIsDone) {
  Session s = session(2);
  EXPECT_EQ(must(s.forward({})).rows, 0);
  EXPECT_EQ(must(s.prefill({})).rows, 0);
  (void)must(s.prefill(text(4)));
  const auto before = slot_values(s, 0);
  // An empty segment leaves its state, copies it elsewhere, or makes a new one.
  const Segment nothing[] = {{{}, 0, 0}};
  (void)must(s.forward(nothing));
  EXPECT_EQ(slot_values(s, 0), before);
  EXPECT_EQ(s.position(0), 4);
  const Segment copied[] = {{{}, 0, 1}};
  (void)must(s.forward(copied));
  EXPECT_EQ(slot_values(s, 1), before);
  EXPECT_EQ(s.position(1), 4);
  const Segment fresh[] = {{{}, -1, 1}};
  (void)must(s.forward(fresh));
  EXPECT_EQ(slot_values(s, 1), std::vector<float>(before.size()));
  EXPECT_EQ(s.position(1), 0);
}

TEST_P(SessionOn, ProgressCountsTokens) {
  const Ids ids = text(20);
  const Segment all{ids, -1, 0};
  Session s = session(1, 8);
  std::vector<std::int64_t> done;
  (void)must(s.forward({&all, 1}, Rows::last, [&](std::int64_t n) { done.push_back(n); }));
  EXPECT_EQ(done, (std::vector<std::int64_t>{8, 16, 20}));
}

// ---- batching
// ------------------------------------------------------------------------------------

TEST_P(SessionOn, SequencesOfOneCallEqualEachAlone) {
  const std::size_t lengths[] = {5, 0, 1, 13, 2};
  std::vector<Ids> texts;
  std::vector<Segment> segments;
  for (std::size_t i = 0; i < std::size(lengths); ++i) {
    texts.push_back(text(lengths[i], static_cast<std::uint32_t>(i)));
  }
  for (std::size_t i = 0; i < texts.size(); ++i) {
    segments.push_back({texts[i], -1, static_cast<int>(i)});
  }
  for (const int chunk : {512, 4}) {
    Session s = session(5, chunk);
    const Logits got = must(s.forward(segments));
    ASSERT_EQ(got.rows, 4);
    std::int64_t row = 0;
    for (const Ids& ids : texts) {
      if (!ids.empty()) {
        EXPECT_LE(rel_l2(got.row(row++), alone(ids)), kSame);
      }
    }
  }
}

TEST_P(SessionOn, TheOrderOfSequencesIsIrrelevant) {
  const Ids a = text(7, 1), b = text(3, 2), c = text(12, 3);
  const Segment forward[] = {{a, -1, 0}, {b, -1, 1}, {c, -1, 2}};
  const Segment reordered[] = {{c, -1, 1}, {a, -1, 2}, {b, -1, 0}};
  Session s = session(3);
  const auto first = values(s.forward(forward));
  const auto second = values(s.forward(reordered));
  const auto row = [](const std::vector<float>& rows, std::size_t i) {
    return std::span(rows).subspan(i * 256, 256);
  };
  EXPECT_LE(rel_l2(row(second, 1), row(first, 0)), kSame);
  EXPECT_LE(rel_l2(row(second, 2), row(first, 1)), kSame);
  EXPECT_LE(rel_l2(row(second, 0), row(first, 2)), kSame);
}

/// Exactly: past tokens' arithmetic has no way to see what follows.
TEST_P(SessionOn, FutureTokensChangeNoPastOutput) {
  Ids ids = text(30);
  Session s = session();
  const Segment before{ids, -1, 0};
  const auto first = values(s.forward({&before, 1}, Rows::all));
  for (std::size_t t = 17; t < ids.size(); ++t) ids[t] = 255 - ids[t];
  const auto second = values(s.forward({&before, 1}, Rows::all));
  const auto past = static_cast<std::ptrdiff_t>(17 * 256);
  EXPECT_TRUE(std::equal(first.begin(), first.begin() + past, second.begin()));
  EXPECT_FALSE(std::equal(first.begin() + past, first.end(), second.begin() + past));
}

TEST_P(SessionOn, TheSameCallTwiceGivesTheSameBits) {
  const Ids a = text(33, 1), b = text(6, 2);
  const Segment segments[] = {{a, -1, 0}, {b, -1, 1}};
  Session s = session(2);
  const auto first = values(s.forward(segments, Rows::all));
  EXPECT_EQ(values(s.forward(segments, Rows::all)), first);
}

// ---- slots
// ---------------------------------------------------------------------------------------

TEST_P(SessionOn, ForksFromOneSlot) {
  const Ids prefix = text(9);
  Session s = session(4);
  (void)must(s.prefill(prefix, 0));
  const auto before = slot_values(s, 0);
  std::vector<Ids> tails = {text(3, 5), text(1, 6), text(8, 7)};
  const Segment forks[] = {{tails[0], 0, 1}, {tails[1], 0, 2}, {tails[2], 0, 3}};
  const Logits got = must(s.forward(forks));
  for (std::size_t i = 0; i < tails.size(); ++i) {
    Ids whole = prefix;
    whole.insert(whole.end(), tails[i].begin(), tails[i].end());
    EXPECT_LE(rel_l2(got.row(static_cast<std::int64_t>(i)), alone(whole)), kSame);
    EXPECT_EQ(s.position(static_cast<int>(i) + 1), static_cast<std::int64_t>(whole.size()));
  }
  EXPECT_EQ(slot_values(s, 0), before);
  EXPECT_EQ(s.position(0), 9);
}

/// Chunks of a segment whose state nobody keeps go through slots of the session's own. With a short
/// one between two long ones, the end of the first and the beginning of the last share a call; the
/// far device refuses it if they share a slot as well.
TEST_P(SessionOn, DiscardedSegmentsOfSeveralChunks) {
  const Ids prefix = text(6);
  const Ids tails[] = {text(11, 1), text(2, 2), text(19, 3), text(1, 4), text(30, 5)};
  for (const int chunk : {1, 4, 8, 16}) {
    SCOPED_TRACE(chunk);
    Session s = session(2, chunk);
    (void)must(s.prefill(prefix, 1));
    const auto kept = slot_values(s, 1);
    std::vector<Segment> segments;
    for (const Ids& tail : tails) segments.push_back({tail, 1, -1});
    segments.push_back({tails[0], -1, -1});
    segments.push_back({tails[2], -1, 0});
    const auto got = values(s.forward(segments));
    ASSERT_EQ(got.size(), 7u * 256);
    for (std::size_t i = 0; i < segments.size(); ++i) {
      Ids whole = segments[i].slot_in < 0 ? Ids() : prefix;
      whole.insert(whole.end(), segments[i].tokens.begin(), segments[i].tokens.end());
      EXPECT_LE(rel_l2(std::span(got).subspan(i * 256, 256), alone(whole)), kSame) << i;
    }
    EXPECT_EQ(slot_values(s, 1), kept);
    EXPECT_EQ(s.position(1), 6);
    EXPECT_EQ(s.position(0), 19);
  }
}

TEST_P(SessionOn, AFreshSegmentForgetsWhatItsSlotHeld) {
  Session s = session();
  (void)must(s.prefill(text(20)));
  const Ids ids = text(7, 9);
  const Segment fresh{ids, -1, 0};
  EXPECT_LE(rel_l2(values(s.forward({&fresh, 1})), alone(ids)), kSame);
  EXPECT_EQ(s.position(), 7);
}

TEST_P(SessionOn, ResetForgetsOneSlot) {
  Session s = session(2);
  (void)must(s.prefill(text(20), 0));
  (void)must(s.prefill(text(6, 2), 1));
  const auto other = slot_values(s, 1);
  ASSERT_TRUE(is_ok(s.reset(0)));
  EXPECT_EQ(s.position(0), 0);
  EXPECT_EQ(s.position(1), 6);
  EXPECT_EQ(slot_values(s, 1), other);
  const Ids ids = text(7, 9);
  EXPECT_LE(rel_l2(values(s.prefill(ids, 0)), alone(ids)), kSame);
}

TEST_P(SessionOn, SnapshotsRollBackAndClone) {
  Session s = session(2);
  (void)must(s.prefill(text(10)));
  const State snapshot = must(s.snapshot());
  EXPECT_EQ(snapshot.position(), 10);
  const auto want = values(s.prefill(text(5, 2)));
  (void)must(s.prefill(text(9, 3)));
  ASSERT_TRUE(is_ok(s.restore(snapshot)));
  EXPECT_EQ(s.position(), 10);
  EXPECT_EQ(values(s.prefill(text(5, 2))), want) << "rolled back";
  ASSERT_TRUE(is_ok(s.restore(snapshot, 1)));
  EXPECT_EQ(values(s.prefill(text(5, 2), 1)), want) << "cloned into another slot";
  Session other = session(3);
  ASSERT_TRUE(is_ok(other.restore(snapshot, 2)));
  EXPECT_EQ(values(other.prefill(text(5, 2), 2)), want) << "cloned into another session";
}

/// Any sequence of calls is the same as each sequence's text consumed alone.
TEST_P(SessionOn, RandomCallsKeepEverySequenceApart) {
  constexpr int kSlots = 4;
  std::mt19937 random(5);
  const auto below = [&](std::size_t n) { return static_cast<int>(random() % n); };
  std::vector<Ids> history(kSlots);
  Session s = session(kSlots, 6);
  for (int call = 0; call < 25; ++call) {
    std::vector<int> order(kSlots);
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), random);
    std::vector<Ids> tokens;
    std::vector<Segment> segments;
    std::vector<Ids> whole;
    // Writers take slots of their own; a slot that another one writes may not be read.
    const int count = 1 + below(kSlots);
    const int readable = order[0];  // also read by the discarded and the forks
    for (int i = 0; i < count; ++i) {
      const int slot = order[static_cast<std::size_t>(i)];
      int in = slot, out = slot;
      switch (below(4)) {
        case 0:
          in = -1;
          break;
        case 1:
          if (i > 0 && segments[0].slot_out != readable) in = readable;
          break;
        case 2:
          out = -1;
          break;
      }
      tokens.push_back(text(static_cast<std::size_t>(below(14)), random()));
      segments.push_back({{}, in, out});
      whole.push_back(in < 0 ? Ids() : history[static_cast<std::size_t>(in)]);
      whole.back().insert(whole.back().end(), tokens.back().begin(), tokens.back().end());
    }
    for (std::size_t i = 0; i < segments.size(); ++i) segments[i].tokens = tokens[i];
    const Logits got = must(s.forward(segments));
    std::int64_t row = 0;
    for (std::size_t i = 0; i < segments.size(); ++i) {
      if (!tokens[i].empty()) {
        ASSERT_LE(rel_l2(got.row(row++), alone(whole[i])), kSame) << "call " << call;
      }
      if (segments[i].slot_out >= 0)
        history[static_cast<std::size_t>(segments[i].slot_out)] = whole[i];
    }
    for (int slot = 0; slot < kSlots; ++slot) {
      Ids& ids = history[static_cast<std::size_t>(slot)];
      ASSERT_EQ(s.position(slot), static_cast<std::int64_t>(ids.size()));
      if (ids.size() > 40) {
        ASSERT_TRUE(is_ok(s.reset(slot)));
        ids.clear();
      }
    }
  }
}

// ---- records
// -------------------------------------------------------------------------------------

TEST_P(SessionOn, RecordsTokensWhenAsked) {
  Session s = must(Session::create(program(), {.slots = 2, .chunk = 3, .record_tokens = true}));
  const Ids prefix = text(8), tail = text(4, 2);
  (void)must(s.prefill(prefix, 0));
  const Segment fork{tail, 0, 1};
  (void)must(s.forward({&fork, 1}));
  Ids whole = prefix;
  whole.insert(whole.end(), tail.begin(), tail.end());
  const auto recorded = [&](int slot) {
    const State state = must(s.snapshot(slot));
    return Ids(state.tokens().begin(), state.tokens().end());
  };
  EXPECT_EQ(recorded(0), prefix);
  EXPECT_EQ(recorded(1), whole);
  ASSERT_TRUE(is_ok(s.reset(0)));
  EXPECT_TRUE(recorded(0).empty());
  const Segment fresh{tail, -1, 0};
  (void)must(s.forward({&fresh, 1}));
  EXPECT_EQ(recorded(0), tail);
  // A state without a record makes one with a gap: that is none.
  Session forgetful = session();
  (void)must(forgetful.prefill(prefix));
  EXPECT_TRUE(must(forgetful.snapshot()).tokens().empty());
  ASSERT_TRUE(is_ok(s.restore(must(forgetful.snapshot()), 0)));
  (void)must(s.prefill(tail, 0));
  EXPECT_TRUE(recorded(0).empty());
}

// ---- refusals
// ------------------------------------------------------------------------------------

TEST_P(SessionOn, RefusedCallsChangeNothing) {
  Session s = session(3, 4);
  (void)must(s.prefill(text(6, 1), 0));
  (void)must(s.prefill(text(9, 2), 1));
  const std::vector<std::vector<float>> before = {slot_values(s, 0), slot_values(s, 1),
                                                  slot_values(s, 2)};
  const Ids good = text(10, 3);
  const auto with = [&](std::size_t at, std::int32_t id) {
    Ids ids = good;
    ids[at] = id;
    return ids;
  };
  const auto refuse = [&](const std::vector<Segment>& segments, std::string_view message) {
    EXPECT_TRUE(is_error(s.forward(segments), Code::invalid_argument, message));
    for (int slot = 0; slot < 3; ++slot) {
      EXPECT_EQ(slot_values(s, slot), before[static_cast<std::size_t>(slot)]) << message;
    }
    EXPECT_EQ(s.position(0), 6);
    EXPECT_EQ(s.position(1), 9);
    EXPECT_EQ(s.position(2), 0);
  };
  // The wrong id comes in the second chunk, when the first could already have run.
  for (const std::int32_t id : {256, -1, INT32_MAX, INT32_MIN}) {
    const Ids wrong = with(7, id);
    refuse({{good, 0, 0}, {wrong, 1, 1}},
           "token 7 of segment 1: expected an id from 0 to 255, got " + std::to_string(id));
  }
  refuse({{good, 0, 0}, {good, 1, 0}}, "segments 0 and 1 both write slot 0");
  refuse({{good, 0, 0}, {good, 0, 2}}, "segment 1 reads slot 0, which segment 0 writes");
  refuse({{good, 1, 2}, {good, 0, 1}}, "segment 0 reads slot 1, which segment 1 writes");
  refuse({{good, 3, 0}}, "slot: expected -1 to 2, got 3");
  refuse({{good, -2, 0}}, "slot: expected -1 to 2, got -2");
  refuse({{good, 0, 3}}, "slot: expected -1 to 2, got 3");
  refuse({{good, INT32_MAX, INT32_MIN}}, "slot: expected -1 to 2");
  EXPECT_TRUE(is_error(s.prefill(good, 3), Code::invalid_argument, "slot: expected -1 to 2"));
  EXPECT_TRUE(is_error(s.step(256, 0), Code::invalid_argument, "token 0 of segment 0"));
}

TEST_P(SessionOn, SlotsThatDoNotExistAreRefused) {
  Session s = session(2);
  const State state = must(s.snapshot(0));
  for (const int slot : {-1, 2, INT32_MAX, INT32_MIN}) {
    EXPECT_TRUE(is_error(s.snapshot(slot), Code::invalid_argument, "slot: expected 0 to 1"));
    EXPECT_TRUE(is_error(s.restore(state, slot), Code::invalid_argument, "slot: expected 0 to 1"));
    EXPECT_TRUE(is_error(s.reset(slot), Code::invalid_argument, "slot: expected 0 to 1"));
    EXPECT_EQ(s.position(slot), -1);
  }
}

TEST_P(SessionOn, OptionsThatMakeNoSenseAreRefused) {
  for (const int wrong : {0, -1, INT32_MIN, INT32_MAX}) {
    EXPECT_TRUE(is_error(Session::create(program(), {.slots = wrong}), Code::invalid_argument,
                         "slots: expected 1 to 1048576"));
    EXPECT_TRUE(is_error(Session::create(program(), {.chunk = wrong}), Code::invalid_argument,
                         "chunk: expected 1 to 1048576 tokens"));
  }
}

TEST_P(SessionOn, OutputsBeforeAnyCallAndOfNoNameAreRefused) {
  Session s = session();
  EXPECT_TRUE(is_error(s.output("logits"), Code::invalid_argument, "nothing has run yet"));
  EXPECT_TRUE(is_error(s.output("hidden"), Code::not_found, "there is no output named hidden"));
  const auto want = values(s.prefill(text(3)));
  EXPECT_EQ(must(s.output("logits")), want);
}

// ---- objects
// -------------------------------------------------------------------------------------

TEST_P(SessionOn, MemoryIsConstantInTheSequencesLength) {
  Session s = session(1, 16);
  (void)must(s.prefill(text(100)));
  (void)must(s.step(1));
  const std::int64_t bytes = s.memory_bytes();
  // 3 layers of [128, 3] and [128, 16] in 3 slots, and an arena.
  EXPECT_GE(bytes, 3 * 3 * 128 * 19 * 4);
  for (int i = 0; i < 5; ++i) (void)must(s.prefill(text(100)));
  EXPECT_EQ(s.position(), 601);
  EXPECT_EQ(s.memory_bytes(), bytes);
}

TEST_P(SessionOn, SessionsOfOneProgramDoNotSeeEachOther) {
  Session a = session(), b = session();
  const Ids first = text(5, 1), second = text(8, 2);
  for (std::size_t t = 0; t < 8; ++t) {
    if (t < first.size()) (void)must(a.step(first[t]));
    (void)must(b.step(second[t]));
  }
  EXPECT_LE(rel_l2(values(a.step(3)), alone({first[0], first[1], first[2], first[3], first[4], 3})),
            kSame);
}

TEST_P(SessionOn, MovedFromSessionsReturnErrors) {
  Session a = session();
  (void)must(a.prefill(text(5)));
  const State state = must(a.snapshot());
  Session b = std::move(a);
  EXPECT_EQ(b.position(), 5);
  // NOLINTBEGIN(bugprone-use-after-move): what is tested
  const std::string_view message = "this session was moved from";
  EXPECT_TRUE(is_error(a.step(1), Code::invalid_argument, message));
  EXPECT_TRUE(is_error(a.forward({}), Code::invalid_argument, message));
  EXPECT_TRUE(is_error(a.run({}, {}, {}, {}), Code::invalid_argument, message));
  EXPECT_TRUE(is_error(a.output("logits"), Code::invalid_argument, message));
  EXPECT_TRUE(is_error(a.snapshot(), Code::invalid_argument, message));
  EXPECT_TRUE(is_error(a.restore(state), Code::invalid_argument, message));
  EXPECT_TRUE(is_error(a.reset(), Code::invalid_argument, message));
  EXPECT_EQ(a.position(), -1);
  EXPECT_EQ(a.memory_bytes(), 0);
  a = std::move(b);
  EXPECT_EQ(a.position(), 5);
  EXPECT_TRUE(is_ok(a.step(1)));
  // NOLINTEND(bugprone-use-after-move)
}

TEST(Program, NeedsADevice) {
  EXPECT_TRUE(is_error(Program::create(test::golden_model("mamba-1"), nullptr),
                       Code::invalid_argument, "no device"));
}

TEST(Program, OutlivesWhatItWasMadeOf) {
  const Ids ids = text(5);
  Session s = [] {
    const Program program = must(Program::create(
        must(Model::load(test::goldens() / "models" / "mamba-1")), test::device("reference")));
    return test::session(program);
  }();
  EXPECT_EQ(values(s.prefill(ids)), test::logits_after(test::golden_program("reference"), ids));
}

}  // namespace
}  // namespace krait
