// Any bytes as JSON: an error, or a value that survives being written and read again.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "runtime/core/json.h"
#include "tests/fuzz/require.h"

using krait::test::require;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  require(!krait::shown(text).empty());
  const krait::Result<krait::Json> value = krait::parse_json(text, "input");
  if (!value.ok()) {
    require(value.status().code() == krait::Code::corrupt);
    require(value.message().starts_with("input: byte ") && value.message().size() < 1000);
    return 0;
  }
  (void)krait::number(*value);
  (void)krait::whole_number(*value);
  // Infinity and NaN are written as null, so the second text is the fixed point.
  const std::string once = value->dump();
  const krait::Result<krait::Json> again = krait::parse_json(once, "input");
  require(again.ok() && again->dump() == once);
  return 0;
}
