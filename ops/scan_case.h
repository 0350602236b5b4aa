// What the cases of the scans share.
#pragma once

#include <string_view>
#include <utility>
#include <vector>

#include "ops/enums.h"

namespace krait {

/// Attributes of a case: dt through softplus, as models have it, and a rule of discretisation.
inline std::vector<std::pair<std::string_view, double>> softplus_and_rule(Discretisation rule) {
  return {{"dt_softplus", 1}, {"discretisation", static_cast<double>(rule)}};
}

}  // namespace krait
