// Conformance: every op on a device against the float64 reference.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <krait/device.h>
#include <krait/export.h>
#include <krait/status.h>

namespace krait {

enum class Verdict {
  pass,  ///< the error is within the tolerance, or a wrong call was refused as it should be
  fail,
  unsupported,  ///< no kernel of the device runs this call; the reason says why. Not a pass.
};
KRAIT_API std::string_view name(Verdict verdict);

struct ConformResult {
  std::string op;
  std::string device;
  std::string kernel;  ///< the kernel that ran; empty if none did
  std::string dtype;   ///< "f32", "f32/bf16": activations / weights; "f32/bf16 native"
  std::string case_name;
  double error = 0;      ///< relative to max(|want|, rms(want)), the worst of all outputs' error ÷
                         ///< tolerance decides which output is reported
  double tolerance = 0;  ///< of that output
  Verdict verdict = Verdict::fail;
  std::string reason;  ///< of a failure or a refusal; else empty
};

struct ConformOptions {
  std::string op = {};         ///< only this op; empty for all
  std::string case_name = {};  ///< only this case; empty for all
};

/// Runs every op × dtype × case on each device and calls `report` with each result as it comes,
/// with the number of results in all. Errors: not_found for an op or case that does not exist.
KRAIT_API Status
conform(const std::vector<std::shared_ptr<Device>>& devices, const ConformOptions& options,
        const std::function<void(const ConformResult&, std::int64_t total)>& report);

}  // namespace krait
