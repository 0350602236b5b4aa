// From logits to the next token, and from text to the place where it should stop.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <krait/export.h>
#include <krait/status.h>

namespace krait {

/// How the next token is drawn. The steps apply in this order, as in Hugging Face's library:
/// repetition penalty, temperature, top-k, top-p (of what top-k left), min-p.
struct SamplerOptions {
  /// 0: always the largest logit, of equal ones the lowest id. Else probabilities are
  /// softmax(logits / temperature).
  float temperature = 0;
  int top_k = 0;    ///< keep the k largest, of equal ones the lowest ids; 0: keep all
  float top_p = 1;  ///< keep the fewest, largest first, that together reach this probability
  float min_p = 0;  ///< keep those at least this many times as probable as the most probable
  /// Logits of recent tokens are divided by this if positive, else multiplied; 1: left alone.
  float repetition_penalty = 1;
  int repetition_window = 64;  ///< how many of the last tokens are recent; 0: none
  std::uint64_t seed = 0;
};

/// Draws tokens. The same options and logits give the same tokens on every platform. One per
/// sequence; not for several threads at once.
class KRAIT_API Sampler {
 public:
  /// invalid_argument: temperature < 0, top_k < 0, top_p outside (0, 1], min_p outside [0, 1],
  /// repetition_penalty <= 0, repetition_window < 0, or one that is not finite.
  static Result<Sampler> create(const SamplerOptions& options);

  /// The id of the next token, an index into `logits`. `recent` are the tokens so far, the latest
  /// last; ids outside the logits are ignored. A NaN counts as -inf; if nothing is above -inf the
  /// token is 0; without logits it is -1. Without memory to draw, the largest logit wins.
  std::int32_t sample(std::span<const float> logits, std::span<const std::int32_t> recent) noexcept;

 private:
  struct Candidate {
    float logit;
    std::int32_t id;
  };

  explicit Sampler(const SamplerOptions& options) : options_(options), random_(options.seed) {}

  /// Fills candidates_, in the order of ids.
  void collect(std::span<const float> logits, std::span<const std::int32_t> recent);
  std::int32_t draw();
  double next_uniform();

  SamplerOptions options_;
  std::uint64_t random_;  // state of the generator
  std::vector<Candidate> candidates_;
  std::vector<double> weights_;
};

/// Watches text that arrives in parts for strings that end it.
class KRAIT_API StopMatcher {
 public:
  /// invalid_argument: a stop string that is empty or not UTF-8. No stop strings: never stops.
  static Result<StopMatcher> create(std::vector<std::string> stops);

  /// The text that is safe to print: all so far, less an end that a stop string may begin with; and
  /// nothing from the first complete stop string on. How the text is cut into parts makes no
  /// difference. `text` must hold whole characters; so does what comes back.
  Result<std::string> push(std::string_view text);

  /// What was held back, when no more text comes; nothing after a stop.
  Result<std::string> flush();

  /// Whether a stop string has come.
  bool stopped() const { return stopped_; }

 private:
  explicit StopMatcher(std::vector<std::string> stops) : stops_(std::move(stops)) {}

  std::vector<std::string> stops_;
  std::string held_;  // text that may be the beginning of a stop string
  bool stopped_ = false;
};

}  // namespace krait
