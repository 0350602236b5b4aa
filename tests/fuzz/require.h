// What a fuzz target demands besides that no sanitizer speaks up.
#pragma once

#include <cstdio>
#include <cstdlib>

namespace krait::test {

/// Ends the process, which the fuzzer takes for a finding. Stack traces name no line where
/// functions were inlined, so that of the call is printed.
inline void require(bool condition, const char* file = __builtin_FILE(),
                    int line = __builtin_LINE()) {
  if (condition) return;
  std::fprintf(stderr, "%s:%d: does not hold\n", file, line);
  std::abort();
}

}  // namespace krait::test
