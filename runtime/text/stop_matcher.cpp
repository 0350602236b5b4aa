#include <algorithm>
#include <cstddef>
#include <utility>

#include "runtime/core/try.h"
#include "runtime/text/unicode.h"
#include <krait/sampler.h>

namespace krait {

Result<StopMatcher> StopMatcher::create(std::vector<std::string> stops) {
  return guarded([&]() -> Result<StopMatcher> {
    for (const std::string& stop : stops) {
      if (stop.empty()) return invalid("[stop] expected stop strings, got an empty one");
      if (find_invalid_utf8(stop) != stop.size()) {
        return invalid("[stop] stop string ", excerpt(stop), " is not UTF-8");
      }
    }
    return StopMatcher(std::move(stops));
  });
}

Result<std::string> StopMatcher::push(std::string_view text) {
  return guarded([&]() -> Result<std::string> {
    if (stopped_) return std::string();
    held_ += text;
    // The first to be complete counts, as if the text had come one character at a time; of several
    // that end together, the longest.
    std::size_t begin = std::string_view::npos, end = std::string_view::npos;
    for (const std::string& stop : stops_) {
      const std::size_t at = held_.find(stop);
      if (at == std::string_view::npos || at + stop.size() > end) continue;
      begin = at + stop.size() < end ? at : std::min(begin, at);
      end = at + stop.size();
    }
    if (end != std::string_view::npos) {
      stopped_ = true;
      held_.resize(begin);
      return std::exchange(held_, std::string());
    }
    // The longest end that some stop string begins with.
    std::size_t keep = 0;
    for (const std::string& stop : stops_) {
      for (std::size_t size = std::min(stop.size() - 1, held_.size()); size > keep; --size) {
        if (held_.ends_with(std::string_view(stop).substr(0, size))) keep = size;
      }
    }
    std::string safe = held_.substr(0, held_.size() - keep);
    held_.erase(0, safe.size());
    return safe;
  });
}

Result<std::string> StopMatcher::flush() {
  return guarded([&]() -> Result<std::string> { return std::exchange(held_, std::string()); });
}

}  // namespace krait
