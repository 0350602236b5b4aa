// Marks in a device's order of work, and the time from each to the next.
#pragma once

#include <chrono>
#include <vector>

#include <krait/status.h>

namespace krait {

class TimeMarks {
 public:
  virtual ~TimeMarks() = default;
  /// Sets mark `i` behind what was queued so far. Recordings repeat it.
  virtual Status mark(int i) = 0;
  /// Waits for the marks; the seconds from each to the next. All of them have been set.
  virtual Result<std::vector<double>> intervals() = 0;
};

/// For devices that have done their work when a kernel's run() returns.
class HostTimeMarks final : public TimeMarks {
 public:
  explicit HostTimeMarks(int count) : marks_(static_cast<std::size_t>(count)) {}
  Status mark(int i) override {
    marks_[static_cast<std::size_t>(i)] = std::chrono::steady_clock::now();
    return {};
  }
  Result<std::vector<double>> intervals() override {
    std::vector<double> seconds;
    for (std::size_t i = 1; i < marks_.size(); ++i)
      seconds.push_back(std::chrono::duration<double>(marks_[i] - marks_[i - 1]).count());
    return seconds;
  }

 private:
  std::vector<std::chrono::steady_clock::time_point> marks_;
};

}  // namespace krait
