#include <algorithm>
#include <cmath>
#include <cstring>
#include <iterator>
#include <limits>

#include "runtime/core/convert.h"
#include "runtime/core/try.h"
#include "runtime/model/mapped_file.h"
#include "runtime/model/safetensors.h"
#include <krait/verify.h>

namespace krait {
namespace {

using Ids = std::vector<std::int32_t>;

struct Expectation {
  std::vector<Ids> sequences;  ///< all of one length
  std::vector<float> logits;   ///< [S, L, V]
  std::int64_t vocab = 0;
  Ids greedy;
};

Result<Ids> read_ids(const NamedTensor& tensor) {
  if (!tensor.problem.empty() || info(tensor.dtype).floating) {
    return corrupt(tensor.name, ": expected integers");
  }
  Ids ids(static_cast<std::size_t>(tensor.shape.elements()));
  KRAIT_TRY(convert(dense_view(const_cast<std::byte*>(tensor.data), tensor.dtype, tensor.shape),
                    dense_view(ids.data(), DType::i32, tensor.shape)));
  return ids;
}

Result<Expectation> read_expectation(const std::filesystem::path& path) {
  KRAIT_ASSIGN(const MappedFile mapped, MappedFile::open(path));
  KRAIT_ASSIGN(const SafetensorsFile file, SafetensorsFile::parse(mapped.bytes(), path.string()));
  const NamedTensor* ids = file.find("input_ids");
  const NamedTensor* logits = file.find("logits");
  if (!ids || !logits) return corrupt(path.string(), ": expected tensors input_ids and logits");
  const int rank = ids->shape.rank();
  if (rank < 1 || rank > 2 || logits->shape.rank() != rank + 1 || logits->dtype != DType::f32 ||
      Shape(logits->shape.span().first(static_cast<std::size_t>(rank))) != ids->shape) {
    return corrupt(path.string(), ": expected input_ids [S, L] and f32 logits [S, L, V], got ",
                   to_string(ids->shape), " and ", to_string(logits->shape));
  }
  Expectation expectation;
  KRAIT_ASSIGN(const Ids flat, read_ids(*ids));
  const auto length = static_cast<std::size_t>(ids->shape[rank - 1].value);
  for (std::size_t at = 0; length && at < flat.size(); at += length) {
    expectation.sequences.emplace_back(flat.begin() + static_cast<std::ptrdiff_t>(at),
                                       flat.begin() + static_cast<std::ptrdiff_t>(at + length));
  }
  if (expectation.sequences.empty()) return corrupt(path.string(), ": input_ids is empty");
  expectation.vocab = logits->shape[rank].value;
  expectation.logits.resize(static_cast<std::size_t>(logits->shape.elements()));
  std::memcpy(expectation.logits.data(), logits->data, expectation.logits.size() * sizeof(float));
  if (const NamedTensor* greedy = file.find("greedy")) {
    KRAIT_ASSIGN(expectation.greedy, read_ids(*greedy));
  }
  return expectation;
}

/// How many tokens each call takes of sequence `s` at position `at`.
using Cut = std::int64_t (*)(std::size_t s, std::size_t at);

std::int64_t whole(std::size_t, std::size_t) {
  return std::numeric_limits<std::int64_t>::max();
}
std::int64_t one(std::size_t, std::size_t) {
  return 1;
}
/// 1, 5, 2, 7, 3, 11 … shifted per sequence: pieces shorter and longer than a convolution's taps.
std::int64_t uneven(std::size_t s, std::size_t at) {
  constexpr std::int64_t kLengths[] = {1, 5, 2, 7, 3, 11};
  return kLengths[(s + at) % std::size(kLengths)];
}

/// Feeds every sequence in the given cuts, several sequences per call, and compares all logits.
Result<VerifyMode> run_mode(Session& session, const Expectation& want, std::string name, Cut cut,
                            const std::function<void(double)>& progress) {
  const std::size_t count = want.sequences.size();
  const std::size_t length = want.sequences[0].size();
  const auto vocab = static_cast<std::size_t>(want.vocab);
  std::vector<std::size_t> at(count);
  VerifyMode mode{std::move(name), std::string(session.program().activations()), 0, 0};
  double squares = 0;
  double errors = 0;
  std::size_t done = 0;
  while (done < count * length) {
    std::vector<Segment> segments;
    std::vector<std::size_t> first_row;  // in the expected logits, per segment
    for (std::size_t s = 0; s < count; ++s) {
      const std::size_t take = static_cast<std::size_t>(
          std::min<std::int64_t>(cut(s, at[s]), static_cast<std::int64_t>(length - at[s])));
      if (take == 0) continue;
      const int slot = static_cast<int>(s);
      segments.push_back(
          {std::span(want.sequences[s]).subspan(at[s], take), at[s] ? slot : -1, slot});
      first_row.push_back(s * length + at[s]);
      at[s] += take;
      done += take;
    }
    KRAIT_ASSIGN(const Logits got, session.forward(segments, Rows::all));
    if (got.vocab != want.vocab) {
      return invalid("logits: the model has ", got.vocab, " per row, the expectation ", want.vocab);
    }
    std::size_t row = 0;
    for (std::size_t i = 0; i < segments.size(); ++i) {
      for (std::size_t t = 0; t < segments[i].tokens.size(); ++t, ++row) {
        const float* expected = want.logits.data() + (first_row[i] + t) * vocab;
        const std::span<const float> values = got.row(static_cast<std::int64_t>(row));
        for (std::size_t v = 0; v < vocab; ++v) {
          const double difference = double(values[v]) - double(expected[v]);
          // A NaN must not slip through a comparison.
          if (!(std::fabs(difference) <= mode.max_abs) && !std::isnan(mode.max_abs)) {
            mode.max_abs = std::fabs(difference);
          }
          errors += difference * difference;
          squares += double(expected[v]) * double(expected[v]);
        }
      }
    }
    if (progress) progress(static_cast<double>(done) / static_cast<double>(count * length));
  }
  mode.rel_l2 = std::sqrt(errors / std::max(squares, std::numeric_limits<double>::min()));
  return mode;
}

/// Continues the prompt by the likeliest token, as far as the expectation goes.
Result<bool> greedy_equal(Session& session, const Expectation& want) {
  const Ids& first = want.sequences[0];
  std::size_t prompt = 0;
  while (prompt < want.greedy.size() && prompt < first.size() &&
         want.greedy[prompt] == first[prompt])
    ++prompt;
  if (prompt == 0 || prompt == want.greedy.size()) {
    return corrupt("greedy: expected it to begin like the first row of input_ids and to go on");
  }
  const Segment start{std::span(want.greedy).first(prompt), -1, 0};
  KRAIT_ASSIGN(Logits logits, session.forward({&start, 1}));
  for (std::size_t at = prompt;; ++at) {
    const std::span<const float> row = logits.row(0);
    const auto best =
        static_cast<std::int32_t>(std::max_element(row.begin(), row.end()) - row.begin());
    if (best != want.greedy[at]) return false;
    if (at + 1 == want.greedy.size()) return true;
    KRAIT_ASSIGN(logits, session.step(best));
  }
}

}  // namespace

Result<VerifyReport> verify(const Program& program, const std::filesystem::path& expected,
                            const std::function<void(double)>& progress) {
  return guarded([&]() -> Result<VerifyReport> {
    KRAIT_ASSIGN(const Expectation want, read_expectation(expected));
    SessionOptions options;
    options.slots = static_cast<int>(want.sequences.size());
    // "prefill" means one call, whatever the default chunk is.
    options.chunk =
        std::max(options.chunk, static_cast<int>(want.sequences.size() * want.sequences[0].size()));
    KRAIT_ASSIGN(Session session, Session::create(program, options));
    VerifyReport report;
    report.device = program.device().name;
    constexpr std::pair<const char*, Cut> kModes[] = {
        {"prefill", whole}, {"chunks", uneven}, {"steps", one}};
    double base = 0;
    for (const auto& [name, cut] : kModes) {
      const auto part = [&](double fraction) {
        if (progress) progress(base + fraction / 4);
      };
      KRAIT_ASSIGN(VerifyMode mode, run_mode(session, want, name, cut, part));
      report.modes.push_back(std::move(mode));
      base += 0.25;
    }
    if (!want.greedy.empty()) {
      KRAIT_ASSIGN(report.greedy_equal, greedy_equal(session, want));
    }
    if (progress) progress(1);
    return report;
  });
}

}  // namespace krait
