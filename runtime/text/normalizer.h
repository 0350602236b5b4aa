// What happens to text before it is cut: Unicode normal forms, replacements, a marker in front.
#pragma once

#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "runtime/text/replace.h"
#include "runtime/text/unicode.h"
#include <krait/status.h>

namespace krait {

struct Prepend {
  std::string prefix;
};
struct Lowercase {};

using NormalizeStep = std::variant<NormalForm, Replacement, Prepend, Lowercase>;

/// `text` after all steps, in order. Empty text stays empty.
Result<std::string> normalize(const std::vector<NormalizeStep>& steps, std::string text);

}  // namespace krait
