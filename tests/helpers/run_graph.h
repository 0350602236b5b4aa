// Runs graphs as they are, without a program's passes, and reads results in full precision.
#pragma once

#include <cmath>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "runtime/core/convert.h"
#include "runtime/plan/execution.h"
#include "tests/helpers/expect.h"
#include "tests/helpers/graphs.h"

namespace krait::test {

/// Weights in float64, or whatever type the graph asks for, with values that depend on the name.
class NamedWeights final : public WeightSource {
 public:
  explicit NamedWeights(const ir::Graph& graph) {
    for (const ir::Value& value : graph.values) {
      if (value.kind == ir::Kind::weight) add(value);
    }
  }
  Result<TensorView> find(std::string_view name) const override {
    const auto found = views_.find(std::string(name));
    if (found == views_.end()) return Status(Code::not_found, "no weight " + std::string(name));
    return found->second;
  }
  /// Deterministic numbers in [−0.5, 0.5].
  static std::vector<double> values(std::string_view name, std::int64_t count) {
    std::uint64_t seed = 1469598103934665603u;
    for (const char c : name) seed = (seed ^ static_cast<unsigned char>(c)) * 1099511628211u;
    std::vector<double> result(static_cast<std::size_t>(count));
    for (double& value : result) {
      seed = seed * 6364136223846793005u + 1442695040888963407u;
      value = static_cast<double>(seed >> 11) * 0x1p-53 - 0.5;
    }
    return result;
  }

 private:
  void add(const ir::Value& value) {
    const Shape& shape = value.type.shape;
    std::vector<double> numbers = values(value.name, shape.elements());
    auto& bytes = memory_[value.name];
    bytes.resize(numbers.size() * sizeof(double));
    const TensorView view = dense_view(bytes.data(), value.type.dtype, shape);
    if (Status s = convert(dense_view(numbers.data(), DType::f64, shape), view); !s.ok()) {
      throw std::runtime_error(s.message());
    }
    views_[value.name] = view;
  }
  std::map<std::string, std::vector<std::byte>> memory_;
  std::map<std::string, TensorView> views_;
};

/// A graph on a device, with states in as many slots as its calls have sequences. Host memory only.
class GraphRun {
 public:
  using Outputs = std::map<std::string, std::vector<double>>;

  GraphRun(const ir::Graph& graph, std::shared_ptr<Device> device, std::int64_t slots = 4)
      : graph_(std::make_shared<const ir::Graph>(graph)),
        device_(std::move(device)),
        slots_(slots),
        weights_(graph_, std::make_shared<NamedWeights>(graph), device_) {
    for (const ir::Value& value : graph.values) {
      if (value.kind != ir::Kind::state) continue;
      const std::int64_t bytes =
          bytes_of(value.type.dtype, resolve(value.type.shape, {0, 0, 0, slots_}).elements());
      states_.push_back(must(device_->allocate(bytes)));
      must_be_ok(device_->fill_zero(*states_.back(), 0, bytes));
    }
  }

  Result<std::shared_ptr<const Plan>> plan(const Sizes& sizes) {
    return make_plan(*graph_, device_, weights_, sizes);
  }

  /// One packed call of sequences of these lengths, each in the slot of its number. Float inputs
  /// get values by their name and `call`, `rows` the last token of each sequence, other integers 0
  /// to 3.
  Outputs operator()(const std::vector<std::int64_t>& lengths, int call = 0) {
    std::vector<std::int32_t> starts = {0}, slots, rows;
    bool steps = true;
    for (const std::int64_t length : lengths) {
      slots.push_back(static_cast<std::int32_t>(slots.size()));
      starts.push_back(starts.back() + static_cast<std::int32_t>(length));
      if (length > 0) rows.push_back(starts.back() - 1);
      steps = steps && length == 1;
    }
    std::vector<std::int32_t> ids(static_cast<std::size_t>(starts.back()));
    for (std::size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<std::int32_t>(i % 4);
    const Sizes sizes{starts.back(), static_cast<std::int64_t>(lengths.size()),
                      static_cast<std::int64_t>(rows.size()), slots_, steps};
    const auto plan = must(this->plan(sizes));
    const auto arena = must(device_->allocate(plan->arena_bytes));
    std::vector<Buffer*> states;
    for (const auto& state : states_) states.push_back(state.get());
    Execution execution(plan, states, arena.get());
    must_be_ok(execution.prepare(sizes));
    for (std::size_t id = 0; id < graph_->values.size(); ++id) {
      const ir::Value& value = graph_->values[id];
      if (value.kind != ir::Kind::input) continue;
      const TensorView& view = execution.view(static_cast<ir::Id>(id));
      if (value.type.dtype == DType::i32) {
        std::vector<std::int32_t>& own = value.name == "starts"                  ? starts
                                         : value.name == "rows"                  ? rows
                                         : value.name.compare(0, 4, "slot") == 0 ? slots
                                                                                 : ids;
        must_be_ok(convert(dense_view(own.data(), DType::i32, shape_of(view)), view));
        continue;
      }
      auto numbers = NamedWeights::values(value.name + std::to_string(call), view.elements());
      must_be_ok(convert(dense_view(numbers.data(), DType::f64, shape_of(view)), view));
    }
    must_be_ok(execution.run());
    Outputs outputs;
    for (const ir::Output& output : graph_->outputs) {
      const TensorView& view = execution.view(output.value);
      auto& numbers = outputs[output.name];
      numbers.resize(static_cast<std::size_t>(view.elements()));
      must_be_ok(convert(view, dense_view(numbers.data(), DType::f64, shape_of(view))));
    }
    return outputs;
  }

 private:
  static void must_be_ok(const Status& status) {
    if (!status.ok()) throw std::runtime_error(status.message());
  }
  std::shared_ptr<const ir::Graph> graph_;
  std::shared_ptr<Device> device_;
  std::int64_t slots_;
  WeightStore weights_;
  std::vector<std::unique_ptr<Buffer>> states_;
};

/// The largest |got − want| ÷ max(|want|, 1e-3) of all outputs that both have.
inline double largest_difference(const GraphRun::Outputs& got, const GraphRun::Outputs& want) {
  double worst = 0;
  for (const auto& [name, values] : want) {
    const auto found = got.find(name);
    if (found == got.end() || found->second.size() != values.size()) return INFINITY;
    for (std::size_t i = 0; i < values.size(); ++i) {
      const double error =
          std::fabs(found->second[i] - values[i]) / std::max(std::fabs(values[i]), 1e-3);
      if (!(error <= worst)) worst = error;  // a NaN, too
    }
  }
  return worst;
}

}  // namespace krait::test
