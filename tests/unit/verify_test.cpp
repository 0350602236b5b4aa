// verify(): that it sees differences, and refuses expectations that make no sense.
#include <cmath>
#include <cstring>

#include "runtime/model/safetensors.h"
#include "tests/helpers/sessions.h"
#include <krait/verify.h>

namespace krait {
namespace {

using test::Ids;
using test::is_error;
using test::must;
using test::text;

/// An expectation made by the reference device itself: [2, 6] ids and what follows from them.
class VerifyFile : public testing::Test {
 protected:
  VerifyFile() {
    const Ids first = text(6, 1), second = text(6, 2);
    ids_ = first;
    ids_.insert(ids_.end(), second.begin(), second.end());
    Session s = test::session(program_, 2);
    const Segment segments[] = {{first, -1, 0}, {second, -1, 1}};
    logits_ = test::values(s.forward(segments, Rows::all));
    greedy_.assign(first.begin(), first.begin() + 4);
    auto row = test::logits_after(program_, greedy_);
    for (int i = 0; i < 5; ++i) {
      greedy_.push_back(
          static_cast<std::int32_t>(std::max_element(row.begin(), row.end()) - row.begin()));
      row = test::logits_after(program_, greedy_);
    }
  }
  template <class Element>
  static NamedTensor tensor(std::string name, DType dtype, const Shape& shape,
                            const std::vector<Element>& values) {
    return {std::move(name),
            dtype,
            shape,
            reinterpret_cast<const std::byte*>(values.data()),
            static_cast<std::int64_t>(values.size() * sizeof(Element)),
            {}};
  }
  std::vector<NamedTensor> tensors() const {
    return {tensor("input_ids", DType::i32, ids_shape_, ids_),
            tensor("logits", DType::f32, logits_shape_, logits_),
            tensor("greedy", DType::i32, {1, static_cast<std::int64_t>(greedy_.size())}, greedy_)};
  }
  Result<VerifyReport> run(const std::vector<NamedTensor>& list) {
    const Status written = write_safetensors(folder_ / "expected", list, {});
    if (!written.ok()) throw std::runtime_error(written.message());
    return verify(program_, folder_ / "expected");
  }
  Result<VerifyReport> run() { return run(tensors()); }

  const Program program_ = test::golden_program("reference");
  test::TemporaryFolder folder_;
  Ids ids_, greedy_;
  std::vector<float> logits_;
  Shape ids_shape_{2, 6};
  Shape logits_shape_{2, 6, 256};
};

TEST_F(VerifyFile, FindsNoDifferenceInItsOwnResults) {
  const VerifyReport report = must(run());
  ASSERT_EQ(report.modes.size(), 3u);
  EXPECT_EQ(report.modes[0].rel_l2, 0) << "one call is how the expectation was made";
  for (const VerifyMode& mode : report.modes) EXPECT_LE(mode.rel_l2, 2e-6);
  EXPECT_EQ(report.greedy_equal, true);
}

TEST_F(VerifyFile, FindsADifferenceInOneLogit) {
  logits_[7 * 256 + 3] += 0.5f;
  for (const VerifyMode& mode : must(run()).modes) {
    EXPECT_NEAR(mode.max_abs, 0.5, 1e-4) << mode.mode;
    double squares = 0;
    for (const float value : logits_) squares += static_cast<double>(value) * value;
    EXPECT_NEAR(mode.rel_l2, 0.5 / std::sqrt(squares), 1e-5) << mode.mode;
  }
}

TEST_F(VerifyFile, FindsNanWhereverItIs) {
  logits_[5] = NAN;
  for (const VerifyMode& mode : must(run()).modes) {
    EXPECT_FALSE(mode.rel_l2 <= 1e30) << mode.mode;
    EXPECT_FALSE(mode.max_abs <= 1e30) << mode.mode;
  }
}

TEST_F(VerifyFile, FindsAnotherGreedyContinuation) {
  greedy_.back() = (greedy_.back() + 1) % 256;
  EXPECT_EQ(must(run()).greedy_equal, false);
}

TEST_F(VerifyFile, OneSequenceMayHaveNoAxisOfItsOwn) {
  ids_.resize(6);
  logits_.resize(6 * 256);
  ids_shape_ = {6};
  logits_shape_ = {6, 256};
  const VerifyReport report = must(run());
  EXPECT_LE(report.modes[2].rel_l2, 2e-6);
}

TEST_F(VerifyFile, IdsMayBeOf64Bits) {
  std::vector<NamedTensor> list = tensors();
  const std::vector<std::int64_t> wide(ids_.begin(), ids_.end());
  list[0] = tensor("input_ids", DType::i64, ids_shape_, wide);
  EXPECT_EQ(must(run(list)).modes[0].rel_l2, 0);
}

TEST_F(VerifyFile, WithoutGreedyThereIsNoVerdictOnIt) {
  std::vector<NamedTensor> list = tensors();
  list.pop_back();
  EXPECT_FALSE(must(run(list)).greedy_equal.has_value());
}

TEST_F(VerifyFile, ProgressRisesToOne) {
  ASSERT_TRUE(test::is_ok(write_safetensors(folder_ / "expected", tensors(), {})));
  double last = 0;
  (void)must(verify(program_, folder_ / "expected", [&](double fraction) {
    EXPECT_GE(fraction, last);
    last = fraction;
  }));
  EXPECT_EQ(last, 1);
}

TEST_F(VerifyFile, RefusesWhatMakesNoSense) {
  const auto refuse = [&](const std::vector<NamedTensor>& list, Code code,
                          std::string_view message) {
    EXPECT_TRUE(is_error(run(list), code, message));
  };
  std::vector<NamedTensor> list = tensors();
  refuse({list[0]}, Code::corrupt, "expected tensors input_ids and logits");
  refuse({list[1]}, Code::corrupt, "expected tensors input_ids and logits");

  list[0] = tensor("input_ids", DType::i32, {3, 4}, ids_);
  refuse(list, Code::corrupt, "expected input_ids [S, L] and f32 logits [S, L, V], got [3, 4]");
  list = tensors();
  list[0] = tensor("input_ids", DType::f32, ids_shape_, ids_);
  refuse(list, Code::corrupt, "input_ids: expected integers");
  list = tensors();
  list[1] = tensor("logits", DType::f32, {2, 6, 128, 2}, logits_);
  refuse(list, Code::corrupt, "f32 logits [S, L, V]");
  list[1] = tensor("logits", DType::i32, logits_shape_, logits_);
  refuse(list, Code::corrupt, "f32 logits [S, L, V]");

  const std::vector<float> narrow(2 * 6 * 100);
  list[1] = tensor("logits", DType::f32, {2, 6, 100}, narrow);
  refuse(list, Code::invalid_argument, "the model has 256 per row, the expectation 100");

  const Ids nothing;
  const std::vector<float> none;
  list = {tensor("input_ids", DType::i32, {2, 0}, nothing),
          tensor("logits", DType::f32, {2, 0, 256}, none)};
  refuse(list, Code::corrupt, "input_ids is empty");
}

TEST_F(VerifyFile, RefusesIdsOutsideTheVocabulary) {
  ids_[3] = 256;
  EXPECT_TRUE(is_error(run(), Code::invalid_argument, "expected an id from 0 to 255, got 256"));
  std::vector<NamedTensor> list = tensors();
  std::vector<std::int64_t> wide(ids_.begin(), ids_.end());
  wide[3] = std::int64_t{1} << 40;  // would be 0 if it were cut
  list[0] = tensor("input_ids", DType::i64, ids_shape_, wide);
  EXPECT_TRUE(is_error(run(list), Code::invalid_argument, "expected an id from 0 to 255"));
}

TEST_F(VerifyFile, GreedyMustGoOnWhereAPromptEnds) {
  const Ids good = greedy_;
  greedy_.resize(4);  // the prompt alone
  EXPECT_TRUE(is_error(run(), Code::corrupt, "greedy: expected it to begin like the first row"));
  greedy_ = good;
  greedy_[0] = (greedy_[0] + 1) % 256;  // no common prefix
  EXPECT_TRUE(is_error(run(), Code::corrupt, "greedy: expected it to begin like the first row"));
}

TEST_F(VerifyFile, AFileThatIsNoneIsAnError) {
  EXPECT_TRUE(is_error(verify(program_, folder_ / "nothing"), Code::not_found, "nothing"));
  test::write_file(folder_ / "text", "not a safetensors file");
  EXPECT_TRUE(is_error(verify(program_, folder_ / "text"), Code::corrupt, "text"));
}

}  // namespace
}  // namespace krait
