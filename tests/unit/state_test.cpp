// States as objects and as files: what is saved is what was, on any device; files of other models,
// damaged or hostile ones end in an error that changes nothing.
#include <algorithm>
#include <memory>

#include "runtime/model/mapped_file.h"
#include "runtime/model/safetensors.h"
#include "tests/helpers/graphs.h"
#include "tests/helpers/sessions.h"

namespace krait {
namespace {

using test::Ids;
using test::is_error;
using test::is_ok;
using test::must;
using test::rel_l2;
using test::state_values;
using test::TemporaryFolder;
using test::text;
using test::values;

constexpr double kSame = 2e-6;

State state_after(const Program& program, const Ids& ids, bool record = false) {
  Session s = must(Session::create(program, {.record_tokens = record}));
  (void)must(s.prefill(ids));
  return must(s.snapshot());
}

std::vector<float> continued(const Program& program, const State& state, const Ids& ids) {
  Session s = test::session(program);
  const Status status = s.restore(state);
  if (!status.ok()) throw std::runtime_error(status.message());
  return values(s.prefill(ids));
}

class StateOn : public testing::TestWithParam<std::string> {
 protected:
  Program program() const { return test::session_program(GetParam()); }
  TemporaryFolder folder_;
};

INSTANTIATE_TEST_SUITE_P(Devices, StateOn, testing::ValuesIn(test::session_devices()),
                         [](const auto& info) { return test::test_name(info.param); });

TEST_P(StateOn, SavesAndLoadsBitForBit) {
  const Ids ids = text(23);
  const State state = state_after(program(), ids, true);
  EXPECT_EQ(state.position(), 23);
  EXPECT_EQ(Ids(state.tokens().begin(), state.tokens().end()), ids);
  EXPECT_EQ(state.bytes(), 3 * 128 * (3 + 16) * 4);
  ASSERT_TRUE(is_ok(state.save(folder_ / "state")));
  const State loaded = must(State::load(folder_ / "state", program()));
  EXPECT_EQ(loaded.position(), 23);
  EXPECT_EQ(Ids(loaded.tokens().begin(), loaded.tokens().end()), ids);
  EXPECT_EQ(state_values(loaded), state_values(state));
  EXPECT_EQ(continued(program(), loaded, text(5, 2)), continued(program(), state, text(5, 2)));
  // The same state gives the same file.
  ASSERT_TRUE(is_ok(loaded.save(folder_ / "again")));
  EXPECT_EQ(test::read_file(folder_ / "again"), test::read_file(folder_ / "state"));
}

TEST_P(StateOn, ContinuesOnEveryOtherDevice) {
  const Ids ids = text(23);
  const State state = state_after(program(), ids);
  ASSERT_TRUE(is_ok(state.save(folder_ / "state")));
  Ids whole = ids;
  const Ids tail = text(4, 2);
  whole.insert(whole.end(), tail.begin(), tail.end());
  const auto want = test::logits_after(program(), whole);
  for (const std::string& name : test::session_devices()) {
    SCOPED_TRACE(name);
    const Program there = test::session_program(name);
    EXPECT_LE(rel_l2(continued(there, must(State::load(folder_ / "state", there)), tail), want),
              kSame);
    // And without a file.
    EXPECT_LE(rel_l2(continued(there, state, tail), want), kSame);
  }
}

TEST_P(StateOn, IsOneSequenceWhereverItsSlotWas) {
  const Ids ids = text(9);
  Session s = test::session(program(), 5);
  (void)must(s.prefill(text(30, 7), 2));
  (void)must(s.prefill(ids, 3));
  EXPECT_EQ(state_values(must(s.snapshot(3))), state_values(state_after(program(), ids)));
}

TEST_P(StateOn, ASnapshotDoesNotChangeWhenTheSessionGoesOn) {
  Session s = test::session(program());
  (void)must(s.prefill(text(9)));
  const State state = must(s.snapshot());
  const auto before = state_values(state);
  // NOLINTNEXTLINE(performance-unnecessary-copy-initialization): that is what this is about
  const State copy = state;
  (void)must(s.prefill(text(9)));
  EXPECT_EQ(state_values(state), before);
  EXPECT_EQ(state_values(copy), before);
  EXPECT_EQ(copy.position(), 9);
}

TEST_P(StateOn, AStateOfNothingIsZero) {
  Session s = test::session(program());
  const State state = must(s.snapshot());
  EXPECT_EQ(state.position(), 0);
  EXPECT_TRUE(state.tokens().empty());
  const auto all = state_values(state);
  EXPECT_EQ(all, std::vector<float>(all.size()));
  ASSERT_TRUE(is_ok(state.save(folder_ / "state")));
  EXPECT_EQ(must(State::load(folder_ / "state", program())).position(), 0);
}

TEST_P(StateOn, OutlivesItsSessionAndProgram) {
  const std::string name = GetParam();
  const State state = [&] {
    const auto device = name == "far" ? std::make_shared<test::FarDevice>() : test::device(name);
    const Program own =
        must(Program::create(must(Model::load(test::goldens() / "models" / "mamba-1")), device));
    return state_after(own, text(6));
  }();
  // The same model, loaded from the same files by somebody else.
  EXPECT_LE(rel_l2(continued(program(), state, text(3, 2)),
                   continued(program(), state_after(program(), text(6)), text(3, 2))),
            kSame);
}

TEST_P(StateOn, AnotherModelsStateIsRefused) {
  const Program other = test::session_program(GetParam(), "falcon-mamba-1");
  const State state = state_after(program(), text(6));
  ASSERT_TRUE(is_ok(state.save(folder_ / "state")));
  EXPECT_TRUE(is_error(State::load(folder_ / "state", other), Code::invalid_argument,
                       "this state belongs to another model"));
  Session s = test::session(other);
  (void)must(s.prefill(text(4)));
  const auto before = test::slot_values(s, 0);
  EXPECT_TRUE(
      is_error(s.restore(state), Code::invalid_argument, "this state belongs to another model"));
  EXPECT_EQ(test::slot_values(s, 0), before);
  EXPECT_EQ(s.position(), 4);
  // Asked for, it is taken where the shapes fit, and nowhere else.
  EXPECT_EQ(must(State::load(folder_ / "state", other, true)).position(), 6);
  const Program narrow = test::session_program(GetParam(), "mamba-bias-n8-1");
  EXPECT_TRUE(is_error(State::load(folder_ / "state", narrow, true), Code::corrupt,
                       "tensor layers.0.conv: expected f32[144, 3], got f32[128, 3]"));
}

// ---- files
// ---------------------------------------------------------------------------------------

/// A good file's parts, to be spoilt one at a time.
class StateFile : public testing::Test {
 protected:
  StateFile() {
    const Status saved = state_after(program_, text(7), true).save(good_);
    EXPECT_TRUE(is_ok(saved));
    content_ = test::read_file(good_);
    parsed_ = must(SafetensorsFile::parse(std::as_bytes(std::span(content_)), "good"));
    tensors_.assign(parsed_.tensors().begin(), parsed_.tensors().end());
    metadata_ = parsed_.metadata();
  }
  NamedTensor& tensor(std::string_view name) {
    return *std::find_if(tensors_.begin(), tensors_.end(),
                         [&](const NamedTensor& t) { return t.name == name; });
  }
  Result<State> load_changed(bool any_model = false) {
    const Status written = write_safetensors(folder_ / "changed", tensors_, metadata_);
    if (!written.ok()) throw std::runtime_error(written.message());
    return State::load(folder_ / "changed", program_, any_model);
  }
  void refuse(std::string_view message, Code code = Code::corrupt) {
    EXPECT_TRUE(is_error(load_changed(), code, message));
  }

  const Program program_ = test::golden_program("reference");
  TemporaryFolder folder_;
  std::filesystem::path good_ = folder_ / "good";
  std::string content_;
  SafetensorsFile parsed_;
  std::vector<NamedTensor> tensors_;
  Metadata metadata_;
};

TEST_F(StateFile, UnchangedItLoads) {
  EXPECT_TRUE(is_ok(load_changed()));
}
TEST_F(StateFile, SaysWhatItIs) {
  EXPECT_EQ(metadata_.at("format"), "krait state 1");
  EXPECT_EQ(metadata_.at("architecture"), "mamba");
  EXPECT_EQ(metadata_.at("model"), must(program_.model().fingerprint()));
  EXPECT_EQ(metadata_.at("position"), "7");
  EXPECT_EQ(to_string(tensor("layers.0.conv").shape), "[128, 3]");
  EXPECT_EQ(to_string(tensor("layers.2.ssm").shape), "[128, 16]");
  EXPECT_EQ(tensors_.size(), 7u);  // and the tokens
}
TEST_F(StateFile, WithoutAFormatIsNone) {
  metadata_.erase("format");
  refuse("expected a state file (metadata format \"krait state 1\"), got none");
}
TEST_F(StateFile, OfALaterFormatIsRefused) {
  metadata_["format"] = "krait state 2";
  refuse("got krait state 2");
}
TEST_F(StateFile, WithoutAModelIsRefused) {
  metadata_.erase("model");
  refuse("this state belongs to another model (unknown", Code::invalid_argument);
  EXPECT_TRUE(is_ok(load_changed(true)));
}
TEST_F(StateFile, WithoutAPositionIsRefused) {
  metadata_.erase("position");
  refuse("the state's metadata has no position");
}
TEST_F(StateFile, PositionsAreNumbersThatCanGrow) {
  for (const char* wrong : {"", "NaN", "-1", "7x", " 7", "7 ", "+7", "7.0", "0x7", "1e3",
                            "9223372036854775807", "9223372036854775808", "9007199254740993"}) {
    metadata_["position"] = wrong;
    refuse("position: expected a number from 0 to 9007199254740992, got " + std::string(wrong));
  }
}
TEST_F(StateFile, TokensAreAsManyAsThePosition) {
  metadata_["position"] = "8";
  refuse("tokens: expected as many as the position, 8, got 7");
}
TEST_F(StateFile, WithoutTokensIsFine) {
  tensors_.erase(std::find_if(tensors_.begin(), tensors_.end(),
                              [](const NamedTensor& t) { return t.name == "tokens"; }));
  EXPECT_TRUE(must(load_changed()).tokens().empty());
}
TEST_F(StateFile, TokensOfAnotherTypeOrShapeAreRefused) {
  tensor("tokens").dtype = DType::f32;
  refuse("tokens: expected i32 in one dimension");
  tensor("tokens").dtype = DType::i32;
  tensor("tokens").shape = {7, 1};
  refuse("tokens: expected i32 in one dimension");
}
TEST_F(StateFile, TokensOutsideTheVocabularyAreRefused) {
  const Ids wrong = {1, 2, 3, 256, 5, 6, 7};
  tensor("tokens").data = reinterpret_cast<const std::byte*>(wrong.data());
  refuse("tokens[3]: expected an id from 0 to 255, got 256");
}
TEST_F(StateFile, AMissingTensorIsNamed) {
  tensors_.erase(tensors_.begin());
  refuse("tensor layers.0.conv is missing");
}
TEST_F(StateFile, AnExtraTensorIsRefused) {
  tensors_.push_back(tensor("layers.0.conv"));
  tensors_.back().name = "layers.3.conv";
  refuse("expected 7 tensors, got 8");
}
TEST_F(StateFile, WrongShapesAreRefused) {
  NamedTensor& conv = tensor("layers.1.conv");
  for (const Shape& shape : {Shape{3, 128}, Shape{384}, Shape{1, 128, 3}}) {
    conv.shape = shape;
    refuse("tensor layers.1.conv: expected f32[128, 3], got f32" + to_string(shape));
  }
}
TEST_F(StateFile, WrongTypesAreRefused) {
  NamedTensor& conv = tensor("layers.1.conv");
  conv.dtype = DType::i32;
  refuse("tensor layers.1.conv: expected f32[128, 3], got i32[128, 3]");
}

TEST_F(StateFile, ThatIsNotThereOrNoFileIsAnError) {
  EXPECT_TRUE(is_error(State::load(folder_ / "nothing", program_), Code::not_found, "nothing"));
  std::filesystem::create_directory(folder_ / "folder");
  EXPECT_FALSE(State::load(folder_ / "folder", program_).ok());
}

TEST_F(StateFile, ThatCannotBeWrittenIsAnError) {
  const State state = state_after(program_, text(3));
  EXPECT_FALSE(state.save(folder_ / "no folder" / "state").ok());
  EXPECT_FALSE(std::filesystem::exists(folder_ / "no folder"));
  std::filesystem::create_directory(folder_ / "folder");
  EXPECT_FALSE(state.save(folder_ / "folder").ok());
  EXPECT_TRUE(std::filesystem::is_directory(folder_ / "folder"));
}

TEST_F(StateFile, IsReplacedAsAWhole) {
  const State state = state_after(program_, text(3));
  ASSERT_TRUE(is_ok(state.save(good_)));
  EXPECT_EQ(must(State::load(good_, program_)).position(), 3);
}

/// A loaded state keeps no hold on its file.
TEST_F(StateFile, MayBeRemovedAfterLoading) {
  const State state = must(State::load(good_, program_));
  const auto before = state_values(state);
  test::write_file(good_, std::string(content_.size(), 'x'));
  std::filesystem::remove(good_);
  EXPECT_EQ(state_values(state), before);
}

// ---- an embedder's states
// --------------------------------------------------------------------------

/// Small enough to spoil every byte of its file.
class GraphStateFile : public testing::Test {
 protected:
  GraphStateFile() {
    Session s = test::session(program_, 2);
    std::vector<float> x(40, 0.25f);
    const std::int64_t lengths[] = {5};
    const int slots[] = {1};
    const Feed feeds[] = {{"x", dense_view(x.data(), DType::f32, {5, 8})}};
    EXPECT_TRUE(is_ok(s.run(lengths, slots, slots, feeds)));
    state_ = std::make_unique<State>(must(s.snapshot(1)));
    EXPECT_TRUE(is_ok(state_->save(path_)));
    content_ = test::read_file(path_);
  }
  Result<State> parse(const std::string& file, bool any_model) {
    return parse_state(std::as_bytes(std::span(file)), "file", program_, any_model);
  }

  Model model_ = test::model_of(test::kSmallSsm);
  Program program_ = must(Program::create(model_, test::device("reference")));
  TemporaryFolder folder_;
  std::filesystem::path path_ = folder_ / "state";
  std::unique_ptr<State> state_;
  std::string content_;
};

TEST_F(GraphStateFile, HoldsTheGraphsStatesUnderTheirNames) {
  EXPECT_EQ(state_->position(), 5);
  EXPECT_NE(content_.find("\"conv_state\""), std::string::npos);
  EXPECT_NE(content_.find("\"ssm_state\""), std::string::npos);
  EXPECT_EQ(state_values(must(State::load(path_, program_))), state_values(*state_));
}

TEST_F(GraphStateFile, BelongsToItsWeights) {
  test::Weights other;
  for (const ir::Value& value : model_.graph().ir().values) {
    if (value.kind == ir::Kind::weight) other.add(value.name, value.type.shape, 0.5f);
  }
  const Program different = must(Program::create(
      must(Model::from_graph(model_.graph(), other.list())), test::device("reference")));
  EXPECT_TRUE(is_error(State::load(path_, different), Code::invalid_argument, "another model"));
}

TEST_F(GraphStateFile, TruncatedAtAnyByteIsRefused) {
  for (std::size_t size = 0; size < content_.size(); ++size) {
    const auto loaded = parse(content_.substr(0, size), false);
    ASSERT_FALSE(loaded.ok()) << size;
    ASSERT_EQ(loaded.status().code(), Code::corrupt) << size << ": " << loaded.message();
  }
  EXPECT_FALSE(parse(content_ + "x", false).ok());
  test::write_file(path_, content_.substr(0, 100));
  EXPECT_TRUE(is_error(State::load(path_, program_), Code::corrupt, path_.string()));
}

/// An error or a state; the sanitizers judge the rest.
TEST_F(GraphStateFile, AnyByteMayBeWrong) {
  int loads = 0;
  for (std::size_t at = 0; at < content_.size(); ++at) {
    for (const char byte : {'\0', '"', '9', '\xff'}) {
      std::string broken = content_;
      broken[at] = byte;
      const auto loaded = parse(broken, true);
      if (!loaded.ok()) continue;
      ++loads;
      ASSERT_EQ(state_values(*loaded).size(), 8u * (3 + 4));
    }
  }
  EXPECT_GT(loads, 0) << "the tensors' own bytes may be anything";
}

}  // namespace
}  // namespace krait
