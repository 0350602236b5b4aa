#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstddef>
#include <limits>
#include <new>

#include "runtime/core/try.h"
#include <krait/sampler.h>

namespace krait {
namespace {

constexpr float kLowest = -std::numeric_limits<float>::infinity();

/// exp(x) for x <= 0, in additions, multiplications and divisions alone: libraries disagree in the
/// last bit of theirs, and a draw must not.
///   x = n ln 2 + r, |r| <= ln 2 / 2;  exp(x) = 2^n sum r^k / k!
double exp_nonpositive(double x) {
  constexpr double kInverseLn2 = 1.4426950408889634;
  constexpr double kLn2High = 0.6931471803691238;  // n times this is exact
  constexpr double kLn2Low = 1.9082149292705877e-10;
  constexpr std::array<double, 15> kInverseFactorials = [] {
    std::array<double, 15> inverse{};
    double factorial = 1;
    for (int k = 0; k < 15; ++k) {
      inverse[static_cast<std::size_t>(k)] = 1 / factorial;
      factorial *= k + 1;
    }
    return inverse;
  }();
  if (!(x > -700)) return 0;  // below 1e-304: never drawn
  const int n = static_cast<int>(x * kInverseLn2 - 0.5);
  const double r = (x - n * kLn2High) - n * kLn2Low;
  double sum = 0;  // Horner's scheme; what follows r^14 / 14! is below 1e-19
  for (std::size_t k = kInverseFactorials.size(); k-- > 0;) sum = kInverseFactorials[k] + sum * r;
  return sum * std::bit_cast<double>(static_cast<std::uint64_t>(n + 1023) << 52);
}

float penalised(float logit, float penalty) {
  return logit > 0 ? logit / penalty : logit * penalty;
}

}  // namespace

Result<Sampler> Sampler::create(const SamplerOptions& options) {
  const auto check = [](bool ok, std::string_view name, std::string_view range,
                        auto value) -> Status {
    if (ok) return {};
    return invalid("[sampler] ", name, ": expected ", range, ", got ", value);
  };
  const SamplerOptions& o = options;
  KRAIT_TRY(check(o.temperature >= 0 && std::isfinite(o.temperature), "temperature",
                  "a number from 0 (greedy)", o.temperature));
  KRAIT_TRY(check(o.top_k >= 0, "top_k", "a count from 0 (all)", o.top_k));
  KRAIT_TRY(
      check(o.top_p > 0 && o.top_p <= 1, "top_p", "a number above 0, at most 1 (all)", o.top_p));
  KRAIT_TRY(check(o.min_p >= 0 && o.min_p <= 1, "min_p", "a number from 0 (all) to 1", o.min_p));
  KRAIT_TRY(check(o.repetition_penalty > 0 && std::isfinite(o.repetition_penalty),
                  "repetition_penalty", "a number above 0 (1: none)", o.repetition_penalty));
  KRAIT_TRY(check(o.repetition_window >= 0, "repetition_window", "a count from 0 (none)",
                  o.repetition_window));
  return Sampler(options);
}

std::int32_t Sampler::sample(std::span<const float> logits,
                             std::span<const std::int32_t> recent) noexcept {
  if (logits.empty()) return -1;
  try {
    collect(logits, recent);
    return draw();
  } catch (const std::bad_alloc&) {
    std::int32_t best = 0;
    for (std::size_t i = 1; i < logits.size(); ++i) {
      const float top = logits[static_cast<std::size_t>(best)];
      if (logits[i] > top || (std::isnan(top) && !std::isnan(logits[i]))) {
        best = static_cast<std::int32_t>(i);
      }
    }
    return best;
  }
}

void Sampler::collect(std::span<const float> logits, std::span<const std::int32_t> recent) {
  candidates_.resize(logits.size());
  for (std::size_t i = 0; i < logits.size(); ++i) {
    candidates_[i] = {logits[i], static_cast<std::int32_t>(i)};
    if (std::isnan(logits[i])) candidates_[i].logit = kLowest;
  }
  if (options_.repetition_penalty == 1) return;
  const auto window = static_cast<std::size_t>(options_.repetition_window);
  for (const std::int32_t id : recent.last(std::min(window, recent.size()))) {
    if (id < 0 || static_cast<std::size_t>(id) >= logits.size()) continue;
    // From the given logit: a token that occurs twice is penalised once.
    Candidate& candidate = candidates_[static_cast<std::size_t>(id)];
    const float logit = logits[static_cast<std::size_t>(id)];
    if (!std::isnan(logit)) candidate.logit = penalised(logit, options_.repetition_penalty);
  }
}

std::int32_t Sampler::draw() {
  Candidate best = candidates_.front();
  for (const Candidate& candidate : candidates_) {
    if (candidate.logit > best.logit) best = candidate;
  }
  if (options_.temperature == 0 || best.logit == kLowest) return best.id;

  const auto better = [](const Candidate& a, const Candidate& b) {
    return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
  };
  // The weight is the probability over that of the best. Equal infinities are equal.
  const auto weight = [&](const Candidate& c) {
    if (c.logit == best.logit) return 1.0;
    return exp_nonpositive((static_cast<double>(c.logit) - best.logit) / options_.temperature);
  };
  if (options_.top_k > 0 && static_cast<std::size_t>(options_.top_k) < candidates_.size()) {
    std::partial_sort(candidates_.begin(), candidates_.begin() + options_.top_k, candidates_.end(),
                      better);
    candidates_.resize(static_cast<std::size_t>(options_.top_k));
  }
  weights_.clear();
  double total = 0;
  for (const Candidate& candidate : candidates_) {
    weights_.push_back(weight(candidate));
    total += weights_.back();
  }

  // What top-p and min-p leave are the first so many in order of weight: a heap yields those
  // without sorting all.
  if (options_.top_p < 1 || options_.min_p > 0) {
    const auto worse = [&](const Candidate& a, const Candidate& b) { return better(b, a); };
    const double wanted = options_.top_p < 1 ? total * static_cast<double>(options_.top_p)
                                             : std::numeric_limits<double>::infinity();
    std::make_heap(candidates_.begin(), candidates_.end(), worse);
    auto rest = candidates_.end();
    weights_.clear();
    double kept = 0;
    while (rest != candidates_.begin() && kept < wanted) {
      const double next = weight(candidates_.front());
      if (!(next >= static_cast<double>(options_.min_p)) || next == 0) break;
      std::pop_heap(candidates_.begin(), rest--, worse);
      weights_.push_back(next);
      kept += next;
    }
    // They stand at the end, the best last.
    std::reverse(rest, candidates_.end());
    candidates_.erase(candidates_.begin(), rest);
    total = kept;
  }

  double left = next_uniform() * total;
  std::size_t chosen = 0;
  for (std::size_t i = 0; i < weights_.size(); ++i) {
    if (weights_[i] == 0) continue;
    chosen = i;
    if (left < weights_[i]) break;
    left -= weights_[i];
  }
  return candidates_[chosen].id;
}

/// SplitMix64 (Steele, Lea, Flood 2014), its upper 53 bits as a number in [0, 1).
double Sampler::next_uniform() {
  random_ += 0x9E3779B97F4A7C15u;
  std::uint64_t x = random_;
  x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
  x = (x ^ x >> 27) * 0x94D049BB133111EBu;
  x ^= x >> 31;
  return static_cast<double>(x >> 11) * 0x1p-53;
}

}  // namespace krait
