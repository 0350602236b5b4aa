// Errors of asynchronous work on CUDA name the op that made them, or those that may have.
#include "ops/op.h"
#include "tests/helpers/cuda.h"
#include "tests/helpers/expect.h"

namespace krait {
namespace {

using CudaErrorsDeathTest = test::CudaTest;

/// Queues an op that reads and writes memory which is not there.
Status queue_astray(Device& device, const Op& op) {
  Call call;
  call.op = &op;
  call.inputs[0] = call.outputs[0] = dense_view(reinterpret_cast<void*>(256), DType::f32, {64});
  const KernelChoice choice = test::must(choose_kernel(call, device));
  device.begin_run();
  const Status queued = device.run(*choice.kernel, call, {device, {}});
  device.end_run();
  return queued;
}

[[noreturn]] void leave_with(const Status& status) {
  std::fprintf(stderr, "%s\n", status.message().c_str());
  std::exit(status.code() == Code::device_lost ? 3 : 4);
}

// What failed is lost for the whole process, so each has one of its own.

TEST_F(CudaErrorsDeathTest, OneOpIsNamed) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        EXPECT_TRUE(test::is_ok(queue_astray(device(), silu_op)));
        leave_with(device().synchronize());
      },
      testing::ExitedWithCode(3), "\\[silu\\], queued before: ");
}

TEST_F(CudaErrorsDeathTest, OfSeveralTheOneAtFaultIsAmongThoseNamed) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        (void)queue_astray(device(), silu_op);
        (void)queue_astray(device(), exp_op);  // may report the first one's error itself
        leave_with(device().synchronize());
      },
      testing::ExitedWithCode(3), "\\[silu\\]");
}

/// The call that comes next gets the error, and is not the one to blame.
TEST_F(CudaErrorsDeathTest, WhoGetsItSaysWhoseItMayBe) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        const float x = 0;
        const auto buffer = test::must(device().allocate(sizeof x));
        (void)queue_astray(device(), silu_op);
        Status status;
        for (int i = 0; i < 1'000'000 && status.ok(); ++i)
          status = device().upload(&x, *buffer, 0, sizeof x);
        leave_with(status);
      },
      testing::ExitedWithCode(3), "upload: .*; it may be of \\[silu\\], queued before");
}

}  // namespace
}  // namespace krait
