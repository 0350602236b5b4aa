#include <algorithm>
#include <cmath>
#include <cstdint>
#include <gtest/gtest.h>
#include <limits>
#include <numeric>
#include <random>
#include <set>
#include <string>
#include <vector>

#include <krait/sampler.h>

namespace krait {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

using Logits = std::vector<float>;
using Ids = std::vector<std::int32_t>;

Sampler make(const SamplerOptions& options) {
  auto sampler = Sampler::create(options);
  EXPECT_TRUE(sampler.ok()) << sampler.message();
  return sampler.ok() ? *sampler : *Sampler::create({});
}

std::int32_t sample_once(const SamplerOptions& options, const Logits& logits,
                         const Ids& recent = {}) {
  return make(options).sample(logits, recent);
}

/// How often each token came in `count` draws.
std::vector<int> histogram(const SamplerOptions& options, const Logits& logits, int count,
                           const Ids& recent = {}) {
  Sampler sampler = make(options);
  std::vector<int> times(logits.size(), 0);
  for (int i = 0; i < count; ++i) {
    const std::int32_t id = sampler.sample(logits, recent);
    EXPECT_GE(id, 0);
    EXPECT_LT(static_cast<std::size_t>(id), logits.size());
    ++times.at(static_cast<std::size_t>(id));
  }
  return times;
}

/// Logits of given probabilities.
Logits logits_of(const std::vector<double>& probabilities) {
  Logits logits;
  for (const double p : probabilities) logits.push_back(static_cast<float>(std::log(p)));
  return logits;
}

/// The tokens that were drawn at all.
std::set<std::int32_t> drawn(const SamplerOptions& options, const Logits& logits,
                             int count = 5000) {
  const std::vector<int> times = histogram(options, logits, count);
  std::set<std::int32_t> ids;
  for (std::size_t i = 0; i < times.size(); ++i) {
    if (times[i] > 0) ids.insert(static_cast<std::int32_t>(i));
  }
  return ids;
}

TEST(Sampler, RefusesOptionsOutOfRange) {
  const auto refuse = [](const SamplerOptions& options, std::string_view part) {
    const auto sampler = Sampler::create(options);
    ASSERT_FALSE(sampler.ok()) << part;
    EXPECT_EQ(sampler.status().code(), Code::invalid_argument);
    EXPECT_NE(sampler.message().find(part), std::string::npos) << sampler.message();
  };
  refuse({.temperature = -1}, "temperature: expected a number from 0 (greedy), got -1");
  refuse({.temperature = kNaN}, "temperature");
  refuse({.temperature = kInfinity}, "temperature");
  refuse({.top_k = -1}, "top_k: expected a count from 0 (all), got -1");
  refuse({.top_p = 0}, "top_p: expected a number above 0");
  refuse({.top_p = 1.5F}, "top_p");
  refuse({.top_p = kNaN}, "top_p");
  refuse({.min_p = -0.1F}, "min_p: expected a number from 0 (all) to 1");
  refuse({.min_p = 1.1F}, "min_p");
  refuse({.min_p = kNaN}, "min_p");
  refuse({.repetition_penalty = 0}, "repetition_penalty: expected a number above 0");
  refuse({.repetition_penalty = kNaN}, "repetition_penalty");
  refuse({.repetition_penalty = kInfinity}, "repetition_penalty");
  refuse({.repetition_window = -1}, "repetition_window: expected a count from 0");
  EXPECT_TRUE(Sampler::create({}).ok());
  EXPECT_TRUE(
      Sampler::create({.temperature = 2, .top_k = 1 << 30, .top_p = 1e-6F, .min_p = 1}).ok());
}

TEST(Sampler, GreedyTakesTheLowestOfTheLargest) {
  EXPECT_EQ(sample_once({}, {1, 3, 2, 3}), 1);
  EXPECT_EQ(sample_once({}, {kNaN, -kInfinity, -5}), 2);
  EXPECT_EQ(sample_once({}, {-1, kInfinity, kInfinity}), 1);
  EXPECT_EQ(sample_once({}, {0.0F, -0.0F}), 0);
  EXPECT_EQ(sample_once({}, {-0.0F, 0.0F}), 0);
}

TEST(Sampler, HasAnAnswerForEveryLogits) {
  for (const float temperature : {0.0F, 1.0F}) {
    const SamplerOptions options = {.temperature = temperature, .top_k = 2, .top_p = 0.5F};
    EXPECT_EQ(sample_once(options, {}), -1);
    EXPECT_EQ(sample_once(options, {kNaN, kNaN}), 0);
    EXPECT_EQ(sample_once(options, {-kInfinity, -kInfinity}), 0);
    EXPECT_EQ(sample_once(options, {-kInfinity, kNaN, 1}), 2);
  }
  // Infinite logits share everything.
  EXPECT_EQ(drawn({.temperature = 1}, {1, kInfinity, 5, kInfinity}),
            (std::set<std::int32_t>{1, 3}));
  // What is impossible is never drawn.
  EXPECT_EQ(drawn({.temperature = 1}, {-kInfinity, 0, kNaN, 0, -2000}),
            (std::set<std::int32_t>{1, 3}));
  // The smallest temperature is greedy, the largest uniform.
  EXPECT_EQ(drawn({.temperature = std::numeric_limits<float>::min()}, {1, 1.001F, 1}),
            (std::set<std::int32_t>{1}));
  EXPECT_EQ(drawn({.temperature = std::numeric_limits<float>::max()}, {1, 50, -50}),
            (std::set<std::int32_t>{0, 1, 2}));
}

TEST(Sampler, DrawsTheSameOnEveryPlatform) {
  // Computed by an independent program, in double precision with its own exp and sorting.
  Logits logits;
  for (int i = 0; i < 100; ++i) logits.push_back(static_cast<float>((i * 37) % 100) / 16);
  const auto draw = [&](const SamplerOptions& options) {
    Sampler sampler = make(options);
    Ids ids;
    for (int i = 0; i < 12; ++i) ids.push_back(sampler.sample(logits, {}));
    return ids;
  };
  const Ids first = draw({.temperature = 1, .seed = 42});
  EXPECT_EQ(first, draw({.temperature = 1, .seed = 42}));
  EXPECT_NE(first, draw({.temperature = 1, .seed = 43}));
  EXPECT_EQ(first, (Ids{72, 16, 27, 34, 5, 86, 24, 81, 32, 59, 24, 51}));
  EXPECT_EQ(draw({.temperature = 0.8F, .top_k = 40, .top_p = 0.95F, .min_p = 0.05F, .seed = 42}),
            (Ids{5, 81, 8, 35, 27, 67, 81, 59, 35, 97, 81, 16}));
}

/// Pearson's statistic of counts against probabilities; tokens of probability 0 must not occur.
double chi_square(const std::vector<int>& times, const std::vector<double>& probabilities) {
  const double count = std::accumulate(times.begin(), times.end(), 0);
  const double total = std::accumulate(probabilities.begin(), probabilities.end(), 0.0);
  double sum = 0;
  for (std::size_t i = 0; i < times.size(); ++i) {
    const double expected = count * probabilities[i] / total;
    if (expected == 0) {
      EXPECT_EQ(times[i], 0) << "token " << i;
    } else {
      sum += (times[i] - expected) * (times[i] - expected) / expected;
    }
  }
  return sum;
}

// A correct sampler exceeds these once in a thousand seeds; the seeds are fixed.
constexpr double kLimit7 = 24.32;  // 7 degrees of freedom
constexpr double kLimit3 = 16.27;  // 3
constexpr double kLimit1 = 10.83;  // 1

TEST(Sampler, DrawsWithTheProbabilitiesOfTheSoftmax) {
  const Logits logits = {0.5F, -1, 2, 1.25F, 0, -0.25F, 3, 1};
  for (const float temperature : {0.5F, 1.0F, 1.7F}) {
    std::vector<double> probabilities;
    for (const float logit : logits) probabilities.push_back(std::exp(logit / temperature));
    for (const std::uint64_t seed : {1u, 2u, 3u}) {
      const auto times = histogram({.temperature = temperature, .seed = seed}, logits, 100'000);
      EXPECT_LT(chi_square(times, probabilities), kLimit7)
          << "temperature " << temperature << " seed " << seed;
    }
  }
}

TEST(Sampler, FiltersKeepTheProportionsOfWhatTheyKeep) {
  const std::vector<double> p = {0.05, 0.3, 0.1, 0.25, 0.2, 0.04, 0.05, 0.01};
  const Logits logits = logits_of(p);
  const auto kept = [&](const std::set<std::size_t>& ids) {
    std::vector<double> left(p.size(), 0);
    for (const std::size_t id : ids) left[id] = p[id];
    return left;
  };
  const int n = 100'000;
  EXPECT_LT(chi_square(histogram({.temperature = 1, .top_k = 4}, logits, n), kept({1, 3, 4, 2})),
            kLimit3);
  EXPECT_LT(chi_square(histogram({.temperature = 1, .top_p = 0.8F}, logits, n), kept({1, 3, 4, 2})),
            kLimit3);
  EXPECT_LT(chi_square(histogram({.temperature = 1, .min_p = 0.3F}, logits, n), kept({1, 3, 4, 2})),
            kLimit3);
  // At half the temperature the probabilities are squared before anything is kept.
  std::vector<double> squared(p.size(), 0);
  squared[1] = 0.09;
  squared[3] = 0.0625;
  EXPECT_LT(chi_square(histogram({.temperature = 0.5F, .min_p = 0.5F}, logits, n), squared),
            kLimit1);
}

TEST(Sampler, TopKKeepsTheLowestIdsOfEquals) {
  EXPECT_EQ(drawn({.temperature = 1, .top_k = 2}, {1, 1, 1, 1}), (std::set<std::int32_t>{0, 1}));
  EXPECT_EQ(drawn({.temperature = 1, .top_k = 2}, {0, 1, 2, 1}), (std::set<std::int32_t>{1, 2}));
  EXPECT_EQ(drawn({.temperature = 5, .top_k = 1}, {1, 3, 2, 3}), (std::set<std::int32_t>{1}));
  EXPECT_EQ(drawn({.temperature = 9, .top_k = 100}, {1, 2, 3}).size(), 3u);
}

TEST(Sampler, TopPCountsWhatTopKLeft) {
  const Logits logits = logits_of({0.4, 0.3, 0.2, 0.1});
  using Set = std::set<std::int32_t>;
  EXPECT_EQ(drawn({.temperature = 1, .top_p = 0.39F}, logits), (Set{0}));
  EXPECT_EQ(drawn({.temperature = 1, .top_p = 0.41F}, logits), (Set{0, 1}));
  EXPECT_EQ(drawn({.temperature = 1, .top_p = 0.95F}, logits), (Set{0, 1, 2, 3}));
  // Of 0.4 and 0.3 the first has 0.57.
  EXPECT_EQ(drawn({.temperature = 1, .top_k = 2, .top_p = 0.56F}, logits), (Set{0}));
  EXPECT_EQ(drawn({.temperature = 1, .top_k = 2, .top_p = 0.58F}, logits), (Set{0, 1}));
  // One is always left.
  EXPECT_EQ(drawn({.temperature = 1, .top_p = 1e-9F}, logits), (Set{0}));
  EXPECT_EQ(drawn({.temperature = 1, .min_p = 1}, logits), (Set{0}));
  EXPECT_EQ(drawn({.temperature = 1, .min_p = 1}, {2, 5, 5, 1}), (Set{1, 2}));
  // The stricter of top-p and min-p decides.
  EXPECT_EQ(drawn({.temperature = 1, .top_p = 0.99F, .min_p = 0.6F}, logits), (Set{0, 1}));
  EXPECT_EQ(drawn({.temperature = 1, .top_p = 0.41F, .min_p = 0.1F}, logits), (Set{0, 1}));
}

TEST(Sampler, KeepsInALargeVocabularyWhatSortingAllOfItKeeps) {
  std::mt19937 random(99);
  std::normal_distribution<float> normal(0, 3);
  Logits logits(50'000);
  for (float& logit : logits) logit = std::round(normal(random) * 64) / 64;  // with many ties
  std::vector<std::int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) {
    return logits[static_cast<std::size_t>(a)] > logits[static_cast<std::size_t>(b)];
  });
  const auto rank = [&](std::int32_t id) {
    return std::find(order.begin(), order.end(), id) - order.begin();
  };
  for (const int k : {1, 7, 40, 3000}) {
    Sampler sampler = make({.temperature = 3, .top_k = k, .seed = 5});
    for (int i = 0; i < 60; ++i) EXPECT_LT(rank(sampler.sample(logits, {})), k);
  }
  // The smallest set that reaches the probability: it ends where the running sum does.
  double total = 0;
  for (const float logit : logits) total += std::exp(static_cast<double>(logit));
  for (const float p : {0.01F, 0.3F, 0.9F}) {
    double sum = 0;
    std::ptrdiff_t count = 0;
    while (sum < static_cast<double>(p) * total) {
      const auto id = static_cast<std::size_t>(order[static_cast<std::size_t>(count++)]);
      sum += std::exp(static_cast<double>(logits[id]));
    }
    Sampler sampler = make({.temperature = 1, .top_p = p, .seed = 5});
    for (int i = 0; i < 60; ++i) EXPECT_LT(rank(sampler.sample(logits, {})), count) << p;
  }
}

TEST(Sampler, PenalisesRecentTokens) {
  const SamplerOptions greedy = {.repetition_penalty = 2, .repetition_window = 3};
  const Logits logits = {4, 3, -1, -3};
  EXPECT_EQ(sample_once(greedy, logits), 0);
  EXPECT_EQ(sample_once(greedy, logits, {0}), 1);           // 4 / 2 < 3
  EXPECT_EQ(sample_once(greedy, logits, {0, 0, 0}), 1);     // once, however often it came
  EXPECT_EQ(sample_once(greedy, logits, {0, 1}), 0);        // 2 > 1.5
  EXPECT_EQ(sample_once(greedy, logits, {0, 2, 2, 2}), 0);  // beyond the window
  EXPECT_EQ(sample_once(greedy, logits, {0, 2, 2}), 1);
  EXPECT_EQ(sample_once(greedy, {-1, -1.5F}, {0}), 1);  // -1 * 2 < -1.5
  EXPECT_EQ(sample_once(greedy, logits, {-1, 4, 1 << 30}), 0);
  EXPECT_EQ(sample_once(greedy, {kNaN, -2}, {0}), 1);
  EXPECT_EQ(sample_once({.repetition_penalty = 2, .repetition_window = 0}, logits, {0}), 0);
  EXPECT_EQ(sample_once({.repetition_penalty = 0.25F}, logits, {1}), 1);  // below 1: encouraged

  // Before the temperature: 4 / 2 = 2 and 3, divided by 2, differ by 0.5.
  const auto times = histogram({.temperature = 2, .repetition_penalty = 2}, {4, 3}, 100'000, {0});
  EXPECT_LT(chi_square(times, {1, std::exp(0.5)}), kLimit1);
}

StopMatcher make_stops(std::vector<std::string> stops) {
  auto matcher = StopMatcher::create(std::move(stops));
  EXPECT_TRUE(matcher.ok()) << matcher.message();
  return matcher.ok() ? *matcher : *StopMatcher::create({});
}

TEST(StopMatcher, HoldsBackWhatMayBecomeAStop) {
  StopMatcher matcher = make_stops({"</s>", "\n\n"});
  EXPECT_EQ(*matcher.push("Hello"), "Hello");
  EXPECT_EQ(*matcher.push("<"), "");
  EXPECT_EQ(*matcher.push("b>\n"), "<b>");
  EXPECT_EQ(*matcher.push("x<"), "\nx");
  EXPECT_EQ(*matcher.push("/s"), "");
  EXPECT_FALSE(matcher.stopped());
  EXPECT_EQ(*matcher.push("> and more"), "");
  EXPECT_TRUE(matcher.stopped());
  EXPECT_EQ(*matcher.push("even more"), "");
  EXPECT_EQ(*matcher.flush(), "");
}

TEST(StopMatcher, FlushReturnsWhatWasHeld) {
  StopMatcher matcher = make_stops({"END"});
  EXPECT_EQ(*matcher.push("the EN"), "the ");
  EXPECT_EQ(*matcher.flush(), "EN");
  EXPECT_FALSE(matcher.stopped());
  StopMatcher none = make_stops({});
  EXPECT_EQ(*none.push("END"), "END");
  EXPECT_EQ(*none.push(""), "");
  EXPECT_EQ(*none.flush(), "");
}

TEST(StopMatcher, RefusesStringsThatCannotStop) {
  for (const std::string& bad : {std::string(), std::string("\xE2\x82")}) {
    const auto matcher = StopMatcher::create({"ok", bad});
    ASSERT_FALSE(matcher.ok());
    EXPECT_EQ(matcher.status().code(), Code::invalid_argument);
  }
}

TEST(StopMatcher, StopsWhereTheFirstStopIsCompleteHoweverTheTextIsCut) {
  std::mt19937 random(4);
  for (int round = 0; round < 3000; ++round) {
    const auto word = [&](std::size_t longest) {
      std::string text;
      for (std::size_t n = 1 + random() % longest; n > 0; --n) text += "ab"[random() % 2];
      return text;
    };
    std::vector<std::string> stops;
    for (std::size_t n = random() % 4; n > 0; --n) stops.push_back(word(6));
    const std::string text = word(40);
    // The stop string that is complete first, the longest of those; the text ends where it begins.
    std::size_t end = text.size();
    bool stops_here = false;
    for (std::size_t size = 0; size <= text.size() && !stops_here; ++size) {
      for (const std::string& stop : stops) {
        if (!std::string_view(text).substr(0, size).ends_with(stop)) continue;
        stops_here = true;
        end = std::min(end, size - stop.size());
      }
    }

    StopMatcher matcher = make_stops(stops);
    std::string printed;
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t size = 1 + random() % 5;
      printed += *matcher.push(std::string_view(text).substr(at, size));
      at += size;
      // Nothing is held without need: what is not printed yet begins a stop string.
      if (!matcher.stopped()) {
        const std::string held =
            text.substr(printed.size(), std::min(at, text.size()) - printed.size());
        EXPECT_TRUE(held.empty() || std::any_of(stops.begin(), stops.end(), [&](const auto& stop) {
                      return stop.starts_with(held);
                    }));
      }
    }
    printed += *matcher.flush();
    ASSERT_EQ(printed, text.substr(0, end));
    ASSERT_EQ(matcher.stopped(), stops_here);
  }
}

}  // namespace
}  // namespace krait
