#include "runtime/core/log.h"

#include <cstdio>
#include <cstdlib>

namespace krait {

int log_level() {
  static const int level = [] {
    const char* text = std::getenv("KRAIT_LOG");
    return text ? std::atoi(text) : 0;
  }();
  return level;
}

void log(int level, std::string_view line) {
  if (level > log_level()) return;
  std::fprintf(stderr, "krait: %.*s\n", static_cast<int>(line.size()), line.data());
}

}  // namespace krait
