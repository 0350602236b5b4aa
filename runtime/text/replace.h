// Replacing text by text, as normalizers and decoders do.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <variant>

#include "runtime/text/regex.h"
#include <krait/status.h>

namespace krait {

/// Every match of `pattern` becomes `content`, literally.
struct Replacement {
  std::variant<std::string, Regex> pattern;  // a string is not empty
  std::string content;
};

/// Applies `replacement` to `text` and appends the result to `out`. Fails when that makes more than
/// `limit` bytes, so that a hostile file cannot fill the memory.
Status replace_all(const Replacement& replacement, std::string_view text, std::size_t limit,
                   std::string& out);

}  // namespace krait
