// KRAIT_LOG=1 (choices) or 2 (everything): the only way the library writes to stderr, and only
// when the person at the keyboard asked for it.
#pragma once

#include <string_view>

namespace krait {

int log_level();
void log(int level, std::string_view line);

}  // namespace krait
