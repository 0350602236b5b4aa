#include <algorithm>
#include <cstddef>

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
    std::size_t found = held_.npos;
    for (const std::string& stop : stops_) found = std::min(found, held_.find(stop));
    if (found != held_.npos) {
      stopped_ = true;
      held_.resize(found);
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
