// Untrusted JSON: bounded depth, no duplicate keys, and the tokens Infinity and NaN that Python's
// json module writes.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

#include <krait/status.h>

namespace krait {

using Json = nlohmann::json;

/// How deep objects and arrays may nest.
inline constexpr int kMaxJsonDepth = 64;

/// Parses `text`; `what` names the file in messages, which also say at which byte (from 1) it went
/// wrong. Bare Infinity, -Infinity and NaN outside strings become numbers (they are not JSON, but
/// older configurations hold them). Refuses nesting deeper than kMaxJsonDepth, a key that occurs
/// twice in one object, numbers beyond double and strings that are not UTF-8.
Result<Json> parse_json(std::string_view text, std::string_view what);

/// The number `value` stands for: a JSON number, or {"__float__": "Infinity"} (also "-Infinity",
/// "NaN") as transformers 5 writes it. Nothing if it is neither.
std::optional<double> number(const Json& value);

/// The number `value` is if it is written without fraction or exponent and fits std::int64_t.
/// (Comparing a Json with an integer goes through casts, which hostile numbers survive.)
std::optional<std::int64_t> whole_number(const Json& value);

/// A name or word that came out of a file, for messages: in quotes, control characters and
/// everything beyond ASCII escaped, cut after 80 bytes.
std::string shown(std::string_view text);

}  // namespace krait
