// What tests say about Status and Result.
#pragma once

#include <cmath>
#include <gtest/gtest.h>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <krait/status.h>

namespace krait::test {

template <class Outcome>
testing::AssertionResult is_ok(const Outcome& outcome) {
  if (outcome.ok()) return testing::AssertionSuccess();
  if constexpr (std::is_same_v<Outcome, Status>) {
    return testing::AssertionFailure() << name(outcome.code()) << ": " << outcome.message();
  } else {
    return is_ok(outcome.status());
  }
}

/// Whether the outcome is an error of this code whose message contains `text`.
template <class Outcome>
testing::AssertionResult is_error(const Outcome& outcome, Code code, std::string_view text) {
  if (outcome.ok()) {
    return testing::AssertionFailure() << "it worked; expected " << name(code) << ": " << text;
  }
  if constexpr (std::is_same_v<Outcome, Status>) {
    if (outcome.code() == code && outcome.message().find(text) != std::string::npos) {
      return testing::AssertionSuccess();
    }
    return testing::AssertionFailure()
           << "expected " << name(code) << ": ..." << text << "..., got " << name(outcome.code())
           << ": " << outcome.message();
  } else {
    return is_error(outcome.status(), code, text);
  }
}

/// The value of a Result; a test that gets an error ends here, as a failed one.
template <class Value>
Value must(Result<Value> result) {
  if (!result.ok()) throw std::runtime_error(result.message());
  return std::move(*result);
}

/// ‖got − want‖ ÷ ‖want‖; infinity where the sizes differ or something is not finite.
template <class Got, class Want>
double rel_l2(const Got& got, const Want& want) {
  if (got.size() != want.size()) return INFINITY;
  double errors = 0;
  double squares = 0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    const double difference = static_cast<double>(got[i]) - static_cast<double>(want[i]);
    if (!std::isfinite(difference)) return INFINITY;
    errors += difference * difference;
    squares += static_cast<double>(want[i]) * static_cast<double>(want[i]);
  }
  return errors == 0 ? 0 : std::sqrt(errors / squares);
}

}  // namespace krait::test
