// Tests that need a CUDA device, and say so where there is none.
#pragma once

#include <gtest/gtest.h>
#include <memory>

#include "backends/backend.h"

namespace krait::test {

class CudaTest : public testing::Test {
 protected:
  void SetUp() override {
    Result<std::shared_ptr<Device>> opened = open_device("cuda");
    if (!opened.ok()) GTEST_SKIP() << opened.message();
    device_ = *std::move(opened);
  }
  Device& device() { return *device_; }
  const std::shared_ptr<Device>& shared() const { return device_; }

 private:
  std::shared_ptr<Device> device_;
};

}  // namespace krait::test
