// Whole models against the logits and greedy continuations that other implementations computed, on
// every device, in every way a session can consume text.
#include <tuple>

#include "tests/helpers/devices.h"
#include "tests/helpers/expect.h"
#include <krait/verify.h>

namespace krait {
namespace {

using test::is_ok;
using test::must;

struct Golden {
  std::string name;
  std::filesystem::path folder;
};

std::vector<Golden> golden_models() {
  std::vector<Golden> list;
  for (const char* name : {"mamba-1", "mamba-bias-n8-1", "falcon-mamba-1"}) {
    list.push_back({name, test::goldens() / "models" / name});
  }
  list.push_back({"classics-mamba", test::assets() / "classics-mamba"});
  return list;
}

using Parameters = std::tuple<std::string, Golden>;

class ModelGolden : public testing::TestWithParam<Parameters> {};

TEST_P(ModelGolden, IsReproducedInEveryMode) {
  const auto& [device_name, golden] = GetParam();
  const Program program =
      must(Program::create(must(Model::load(golden.folder)), test::device(device_name)));
  const VerifyReport report = must(verify(program, golden.folder / "expected.safetensors"));
  EXPECT_EQ(report.device, device_name);
  ASSERT_EQ(report.modes.size(), 3u);
  const char* const names[] = {"prefill", "chunks", "steps"};
  for (std::size_t i = 0; i < report.modes.size(); ++i) {
    const VerifyMode& mode = report.modes[i];
    EXPECT_EQ(mode.mode, names[i]);
    EXPECT_EQ(mode.activations, "exact");
    EXPECT_LE(mode.rel_l2, 1e-5) << mode.mode;
    EXPECT_GT(mode.max_abs, 0) << "bit for bit the same as another implementation?";
    RecordProperty(mode.mode, std::to_string(mode.rel_l2 * 1e9) + "e-9");
  }
  ASSERT_TRUE(report.greedy_equal.has_value());
  EXPECT_TRUE(*report.greedy_equal);
}

INSTANTIATE_TEST_SUITE_P(Devices, ModelGolden,
                         testing::Combine(testing::ValuesIn(test::device_names()),
                                          testing::ValuesIn(golden_models())),
                         [](const testing::TestParamInfo<Parameters>& info) {
                           return test::test_name(std::get<0>(info.param) + "_" +
                                                  std::get<1>(info.param).name);
                         });

}  // namespace
}  // namespace krait
