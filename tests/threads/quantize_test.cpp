// One model converted by several threads.
#include <gtest/gtest.h>

#include "tests/helpers/devices.h"
#include "tests/helpers/expect.h"
#include "tests/helpers/files.h"
#include <krait/quantize.h>

namespace krait::test {
namespace {

TEST(Threads, QuantiseOneModelTogether) {
  const Model model = must(Model::load(assets() / "classics-mamba"));
  const TemporaryFolder folder;
  const auto file = [&](int threads) {
    const auto path = folder / (std::to_string(threads) + ".gguf");
    (void)must(quantize_model(model, path, {.type = DType::q8_0, .threads = threads}));
    return read_file(path);
  };
  EXPECT_TRUE(file(4) == file(1));
}

}  // namespace
}  // namespace krait::test
