// Untrusted JSON: bounded depth, no duplicate keys, and the tokens Infinity and NaN that Python's
// json module writes.
#pragma once

#include <nlohmann/json.hpp>
#include <string_view>

#include <krait/status.h>

namespace krait {

using Json = nlohmann::json;

/// Parses `text`; `what` names the file in messages. Bare Infinity, -Infinity and NaN outside
/// strings become numbers (they are not JSON, but older configurations hold them). Refuses nesting
/// deeper than 64 and a key that occurs twice in one object.
Result<Json> parse_json(std::string_view text, std::string_view what);

}  // namespace krait
