// selective_scan against float64 results of another implementation of the published recurrence, on
// every device. The files are channel-major: u, delta, z [B, D, L]; B, C [B, G, N, L].
#include <algorithm>
#include <cmath>

#include "backends/backend.h"
#include "ops/case.h"
#include "runtime/core/convert.h"
#include "runtime/model/mapped_file.h"
#include "runtime/model/safetensors.h"
#include "tests/helpers/variants.h"

namespace krait {
namespace {

using test::must;

std::vector<std::string> golden_files() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(test::goldens() / "ops")) {
    const std::string name = entry.path().filename().string();
    if (name.rfind("selective_scan-", 0) == 0) names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

/// A golden's tensors as float64, in the order of the file.
class Golden {
 public:
  explicit Golden(const std::string& name)
      : mapped_(must(MappedFile::open(test::goldens() / "ops" / name))),
        file_(must(SafetensorsFile::parse(mapped_.bytes(), name))) {}

  const Shape& shape(std::string_view name) const { return file_.find(name)->shape; }
  std::vector<double> values(std::string_view name) const {
    const NamedTensor& tensor = *file_.find(name);
    std::vector<double> result(static_cast<std::size_t>(tensor.shape.elements()));
    const Status status =
        convert(dense_view(const_cast<std::byte*>(tensor.data), tensor.dtype, tensor.shape),
                dense_view(result.data(), DType::f64, tensor.shape));
    EXPECT_TRUE(test::is_ok(status));
    return result;
  }
  /// [B, …, L] as [B·L, …]: the tokens of all sequences back to back.
  std::vector<double> tokens(std::string_view name) const {
    const std::vector<double> from = values(name);
    const Shape& shape = this->shape(name);
    const std::int64_t L = shape[shape.rank() - 1].value;
    const std::int64_t batch = shape[0].value;
    const std::int64_t row = shape.elements() / L / batch;
    std::vector<double> to(from.size());
    for (std::int64_t b = 0; b < batch; ++b) {
      for (std::int64_t i = 0; i < row; ++i) {
        for (std::int64_t l = 0; l < L; ++l) {
          to[static_cast<std::size_t>((b * L + l) * row + i)] =
              from[static_cast<std::size_t>((b * row + i) * L + l)];
        }
      }
    }
    return to;
  }

 private:
  MappedFile mapped_;
  SafetensorsFile file_;
};

using Parameters = std::tuple<test::Variant, std::string>;

class ScanGolden : public testing::TestWithParam<Parameters> {
 protected:
  static void put(const HostCall& host, std::string_view name, std::vector<double> values) {
    const TensorView& view =
        host.call.inputs[static_cast<std::size_t>(input_index(*host.call.op, name))];
    ASSERT_EQ(view.elements(), static_cast<std::int64_t>(values.size())) << name;
    ASSERT_TRUE(test::is_ok(convert(dense_view(values.data(), DType::f64, shape_of(view)), view)));
  }
};

TEST_P(ScanGolden, IsReproduced) {
  const auto& [variant, name] = GetParam();
  const Golden golden(name);
  const Shape& u = golden.shape("u");
  const Shape& B = golden.shape("B");
  const std::int64_t batch = u[0].value, D = u[1].value, L = u[2].value;
  // The reference can take float64 activations; others get float32.
  const bool exact = variant.device == "reference";
  for (const bool gated : {false, true}) {
    Case c{.name = name,
           .dims = {{'D', D}, {'N', B[2].value}, {'G', B[1].value}},
           .lengths = std::vector<std::int64_t>(static_cast<std::size_t>(batch), L),
           .attrs = {{"dt_softplus", 1}},
           .slots = Slots::fresh};
    if (!gated) c.omit = {"z"};
    const CaseTypes types{exact ? DType::f64 : DType::f32, DType::f32};
    const HostCall host = must(HostCall::make(*find_op("selective_scan"), c, types));
    put(host, "u", golden.tokens("u"));
    put(host, "dt", golden.tokens("delta"));
    put(host, "A", golden.values("A"));
    put(host, "B", golden.tokens("B"));
    put(host, "C", golden.tokens("C"));
    put(host, "skip", golden.values("D"));
    put(host, "dt_bias", golden.values("delta_bias"));
    if (gated) put(host, "z", golden.tokens("z"));

    const test::ForceKernels forced(variant);
    ASSERT_TRUE(test::is_ok(run_eager(host.call, *test::device(variant.device))));
    const std::vector<double> want = golden.tokens(gated ? "y_gated" : "y");
    EXPECT_LE(relative_error(host.output(0), want), exact ? 1e-12 : tolerance(host.call, 0));
    // Slots 0 to B − 1 hold the states after the last tokens.
    std::vector<double> state = host.output(1);
    state.resize(static_cast<std::size_t>(batch * D * B[2].value));
    EXPECT_LE(relative_error(state, golden.values("last_state")),
              exact ? 0x1p-24 : tolerance(host.call, 1));
  }
}

INSTANTIATE_TEST_SUITE_P(Variants, ScanGolden,
                         testing::Combine(testing::ValuesIn(test::variants()),
                                          testing::ValuesIn(golden_files())),
                         [](const testing::TestParamInfo<Parameters>& info) {
                           return test::test_name(std::get<0>(info.param).name() + " " +
                                                  std::get<1>(info.param));
                         });

}  // namespace
}  // namespace krait
