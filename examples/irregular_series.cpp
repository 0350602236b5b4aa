// A model of one's own: two layers of a continuous-time state-space model that forecast an
// irregularly sampled time series, built with the graph API and run on several series at once.
//
// The step dt of a scan is the real time since the measurement before, on a clock that each channel
// has of its own, and the zero-order hold integrates the system over it exactly. So a gap of an
// hour is one token, as a gap of a second is, and means something else.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <map>

#include <krait/krait.hpp>

namespace {

using krait::DType, krait::Shape, krait::Value;
namespace dims = krait::dims;

/// The value of a result; a failure ends the example with its message.
template <class T>
T take(krait::Result<T> result) {
  if (result.ok()) return *std::move(result);
  std::fprintf(stderr, "%s\n", result.message().c_str());
  std::exit(1);
}
void take(const krait::Status& status) {
  if (!status.ok()) take(krait::Result<int>(status));
}

/// Random numbers from `low` to `high`; the same everywhere.
float random_between(float low, float high) {
  static std::uint32_t state = 1;
  state = state * 1664525u + 1013904223u;
  return low + (high - low) * static_cast<float>(state >> 8) / 16777216.0f;
}

/// The weights of the model by name: random here, from training in your own.
class Weights {
 public:
  Value add(krait::GraphBuilder& graph, const std::string& name, const Shape& shape, float low,
            float high) {
    std::vector<float>& values = memory_[name];
    values.resize(static_cast<std::size_t>(shape.elements()));
    std::generate(values.begin(), values.end(), [&] { return random_between(low, high); });
    shapes_[name] = shape;
    return graph.weight(name, DType::f32, shape);
  }
  std::vector<krait::Weight> list() {
    std::vector<krait::Weight> list;
    for (auto& [name, values] : memory_)
      list.push_back({name, krait::dense_view(values.data(), DType::f32, shapes_[name])});
    return list;
  }

 private:
  std::map<std::string, std::vector<float>> memory_;
  std::map<std::string, Shape> shapes_;
};

// README begin
/// value[T,1] and gap[T,1], the time since the value before -> forecast[T,1].
krait::Result<krait::Graph> build_graph(Weights& weights) {
  constexpr std::int64_t D = 16, N = 8;  // channels, states per channel
  krait::GraphBuilder g("irregular_series");
  const Value starts = g.input("starts", DType::i32, {dims::starts});  // where series begin
  const Value slot_in = g.input("slot_in", DType::i32, {dims::S});     // where states are read
  const Value slot_out = g.input("slot_out", DType::i32, {dims::S});   // and written
  const Value gap = g.input("gap", DType::f32, {dims::T, 1});
  const Value value = g.input("value", DType::f32, {dims::T, 1});

  Value x = g.op("linear", {{"x", value}, {"w", weights.add(g, "in", {D, 1}, -1, 1)}});
  for (const std::string layer : {"0.", "1."}) {
    const auto linear = [&](Value from, const char* name, std::int64_t out, std::int64_t in) {
      const Value w = weights.add(g, layer + name, {out, in}, -0.5f, 0.5f);
      return Value(g.op("linear", {{"x", from}, {"w", w}}));
    };
    const Value u = g.op("rms_norm", {{"x", x}});
    const Value rate = weights.add(g, layer + "rate", {D, 1}, 0.05f, 1);
    const Value y = g.op("selective_scan",
                         {{"u", u},
                          {"dt", g.op("linear", {{"x", gap}, {"w", rate}})},
                          {"A", weights.add(g, layer + "A", {D, N}, -2, -0.1f)},
                          {"B", g.op("split", {{"x", linear(u, "B", N, D)}}, {{"parts", 1.0}})},
                          {"C", g.op("split", {{"x", linear(u, "C", N, D)}}, {{"parts", 1.0}})},
                          {"skip", weights.add(g, layer + "skip", {D}, 0, 1)},
                          {"state", g.state(layer + "state", {dims::C, D, N})},
                          {"starts", starts},
                          {"slot_in", slot_in},
                          {"slot_out", slot_out}},
                         {{"discretisation", "zoh"}});
    x = g.op("add", {{"x", x}, {"y", linear(g.op("silu", {{"x", y}}), "out", D, D)}});
  }
  g.output("forecast", g.op("linear", {{"x", x}, {"w", weights.add(g, "head", {1, D}, -1, 1)}}));
  return g.build();
}
// README end

/// Measurements and the times between them.
struct Series {
  std::vector<float> values, gaps;

  Series part(std::size_t first, std::size_t last) const {
    const auto cut = [&](const std::vector<float>& list) {
      return std::vector<float>(list.begin() + static_cast<std::ptrdiff_t>(first),
                                list.begin() + static_cast<std::ptrdiff_t>(last));
    };
    return {cut(values), cut(gaps)};
  }
};

/// A slow wave, measured whenever somebody came by.
Series measure(int count) {
  Series series;
  float time = random_between(0, 10);
  for (int i = 0; i < count; ++i) {
    series.gaps.push_back(i ? std::exp(random_between(-3, 2)) : 0);
    time += series.gaps.back();
    series.values.push_back(std::sin(time / 3));
  }
  return series;
}

/// The forecasts of all series, one after the other, from one packed call.
std::vector<float> forecast(krait::Session& session, const std::vector<Series>& series,
                            const std::vector<int>& slot_in, const std::vector<int>& slot_out) {
  Series packed;
  std::vector<std::int64_t> lengths;
  for (const Series& one : series) {
    lengths.push_back(static_cast<std::int64_t>(one.values.size()));
    packed.values.insert(packed.values.end(), one.values.begin(), one.values.end());
    packed.gaps.insert(packed.gaps.end(), one.gaps.begin(), one.gaps.end());
  }
  const Shape column = {static_cast<std::int64_t>(packed.values.size()), 1};
  const krait::Feed feeds[] = {
      {"value", krait::dense_view(packed.values.data(), DType::f32, column)},
      {"gap", krait::dense_view(packed.gaps.data(), DType::f32, column)}};
  take(session.run(lengths, slot_in, slot_out, feeds));
  return take(session.output("forecast"));
}

float largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size()) return INFINITY;
  float largest = 0;
  for (std::size_t i = 0; i < a.size(); ++i) largest = std::max(largest, std::fabs(a[i] - b[i]));
  return largest;
}

bool report(const char* what, float difference, bool good) {
  std::printf("%s: largest difference %.2g, %s\n", what, static_cast<double>(difference),
              good ? "as it should be" : "WRONG");
  return good;
}

}  // namespace

int main() {
  constexpr float kTolerance = 1e-5f;  // float32, sums of at most 16 terms of order 1
  Weights weights;
  const krait::Graph graph = take(build_graph(weights));
  const krait::Model model = take(krait::Model::from_graph(graph, weights.list()));
  const krait::Program program = take(krait::Program::create(model, take(krait::open_device())));
  const krait::SessionOptions options{.slots = 3};
  krait::Session session = take(krait::Session::create(program, options));
  bool good = true;

  // Three series of different lengths in one call. They start from nothing (slot −1), and their
  // states stay in the slots 0, 1 and 2.
  const std::vector<Series> series = {measure(11), measure(4), measure(7)};
  const std::vector<int> nothing = {-1, -1, -1}, slots = {0, 1, 2};
  const std::vector<float> whole = forecast(session, series, nothing, slots);

  // In two calls, the second of which continues from the states in the slots.
  const std::vector<Series> early = {series[0].part(0, 5), series[1].part(0, 1),
                                     series[2].part(0, 6)};
  const std::vector<Series> late = {series[0].part(5, 11), series[1].part(1, 4),
                                    series[2].part(6, 7)};
  const std::vector<float> first = forecast(session, early, nothing, slots);
  const krait::State state = take(session.snapshot(0));  // of the first series, after 5 values
  const std::vector<float> second = forecast(session, late, slots, slots);
  const std::vector<float> in_parts = [&] {
    std::vector<float> joined;
    auto a = first.begin(), b = second.begin();
    for (std::size_t s = 0; s < series.size(); ++s) {
      for (std::size_t i = 0; i < early[s].values.size(); ++i) joined.push_back(*a++);
      for (std::size_t i = 0; i < late[s].values.size(); ++i) joined.push_back(*b++);
    }
    return joined;
  }();
  const float parts = largest_difference(whole, in_parts);
  good &= report("whole and in two parts", parts, parts <= kTolerance);

  // Saved, and continued by another session, as after a restart of the program.
  const std::filesystem::path file = std::filesystem::temp_directory_path() /
                                     ("krait-irregular-" + take(model.fingerprint()) + ".state");
  take(state.save(file));
  krait::Session later = take(krait::Session::create(program, options));
  take(later.restore(take(krait::State::load(file, program))));
  std::filesystem::remove(file);
  const std::vector<float> resumed = forecast(later, {late[0]}, {0}, {0});
  const float saved = largest_difference(resumed, {whole.begin() + 5, whole.begin() + 11});
  good &= report("whole and from a saved state", saved, saved <= kTolerance);

  // The same values at even times are another series.
  std::vector<Series> even = series;
  for (Series& one : even) std::fill(one.gaps.begin() + 1, one.gaps.end(), 1.0f);
  const float gaps = largest_difference(whole, forecast(session, even, nothing, slots));
  good &= report("real and even gaps", gaps, gaps > 0.1f);
  return good ? 0 : 1;
}
