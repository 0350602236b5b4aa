// Verification of a whole model against expected logits, in every way a session can consume text.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include <krait/export.h>
#include <krait/session.h>
#include <krait/status.h>

namespace krait {

struct VerifyMode {
  std::string mode;  ///< "prefill": one call; "chunks": uneven pieces; "steps": token by token
  std::string activations;  ///< "exact" or "native"
  double max_abs = 0;       ///< largest |got − want|
  double rel_l2 = 0;        ///< ‖got − want‖ ÷ ‖want‖
};

struct VerifyReport {
  std::string device;
  std::vector<VerifyMode> modes;
  /// Whether the expected greedy continuation was reproduced; nothing if the file has none.
  std::optional<bool> greedy_equal;
};

/// `expected`: a safetensors file with `input_ids` ([S,L] or [L], integers), `logits` ([S,L,V] or
/// [L,V], float32) and perhaps `greedy` (ids; [1,n] or [n]), which begins with a prompt that is the
/// longest common prefix with the first row of input_ids.
KRAIT_API Result<VerifyReport> verify(
    const Program& program, const std::filesystem::path& expected,
    const std::function<void(double fraction)>& progress = nullptr);

}  // namespace krait
