// Matrix products on CUDA beyond what the cases of `linear` show: sums so long that the truncating
// adders of tensor cores would be seen, and the same bits from run to run.
#include <cstring>

#include "ops/case.h"
#include "tests/helpers/cuda.h"
#include "tests/helpers/expect.h"

namespace krait {
namespace {

using CudaProducts = test::CudaTest;

constexpr CaseTypes kTypes[] = {{DType::f32, DType::f32},   {DType::f32, DType::f16},
                                {DType::f32, DType::bf16},  {DType::f32, DType::q4_k},
                                {DType::f16, DType::f16},   {DType::bf16, DType::bf16},
                                {DType::bf16, DType::q8_0}, {DType::bf16, DType::f32}};

Case product(std::int64_t tokens, std::int64_t inputs, std::int64_t outputs) {
  return {.name = "product",
          .dims = {{'I', inputs}, {'O', outputs}},
          .lengths = {tokens},
          .attrs = {{"dtype", static_cast<double>(DType::f32)}}};
}

TEST_F(CudaProducts, LongSumsStayWithinTheTolerance) {
  for (const CaseTypes& types : kTypes) {
    for (const std::int64_t inputs : {2560, 5120, 16384}) {
      for (const bool positive : {false, true}) {  // sums that grow with √I, and with I
        Case c = product(33, inputs, 40);
        if (positive) c.ranges = {{"x", {0, 1}}, {"w", {0, 1}}};
        HostCall host = test::must(HostCall::make(linear_op, c, types));
        const auto want = host.reference();
        std::string kernel;
        ASSERT_TRUE(test::is_ok(run_eager(host.call, device(), &kernel)));
        const double error = relative_error(host.output(0), want[0]);
        EXPECT_LE(error, tolerance(host.call, 0))
            << to_string(linear_op, types) << " [" << kernel << "], " << inputs
            << (positive ? " positive inputs" : " inputs");
        std::printf("%-10s %5d %s %-12s error %.2e of %.2e\n", to_string(linear_op, types).c_str(),
                    static_cast<int>(inputs), positive ? "positive" : "mixed   ", kernel.c_str(),
                    error, tolerance(host.call, 0));
      }
    }
  }
}

/// Batches stream weights through a ring, whose length depends on the number of tokens and on the
/// types: with so many inputs it goes round several times.
TEST_F(CudaProducts, RingsOfBatchesLoseNothing) {
  for (const CaseTypes& types : {CaseTypes{DType::f32, DType::bf16}, {DType::bf16, DType::bf16}}) {
    for (const std::int64_t tokens : {5, 16, 17, 32, 33, 64}) {
      const Case c{.name = "ring", .dims = {{'I', 5120}, {'O', 161}}, .lengths = {tokens}};
      HostCall host = test::must(HostCall::make(linear_residual_op, c, types));
      const auto want = host.reference();
      std::string kernel;
      ASSERT_TRUE(test::is_ok(run_eager(host.call, device(), &kernel)));
      EXPECT_LE(relative_error(host.output(0), want[0]), tolerance(host.call, 0))
          << to_string(linear_residual_op, types) << " [" << kernel << "], " << tokens << " tokens";
    }
  }
}

TEST_F(CudaProducts, RunsAgreeBitForBit) {
  for (const CaseTypes& types : kTypes) {
    for (const std::int64_t tokens : {1, 8, 33, 700}) {
      std::vector<std::byte> first;
      for (int run = 0; run < 3; ++run) {
        const HostCall host =
            test::must(HostCall::make(linear_op, product(tokens, 2560, 96), types));
        std::string kernel;
        ASSERT_TRUE(test::is_ok(run_eager(host.call, device(), &kernel)));
        const std::vector<std::byte>& bytes = host.outputs[0]->bytes;
        if (run == 0) first = bytes;
        EXPECT_EQ(std::memcmp(bytes.data(), first.data(), first.size()), 0)
            << to_string(linear_op, types) << " [" << kernel << "], " << tokens << " tokens";
      }
    }
  }
}

}  // namespace
}  // namespace krait
