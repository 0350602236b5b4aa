// What a Program holds: everything about (model, device) that sessions share.
#pragma once

#include <map>
#include <memory>
#include <mutex>

#include "runtime/plan/plan.h"
#include "runtime/plan/weight_store.h"
#include "runtime/session/inputs.h"
#include <krait/session.h>

namespace krait {

struct Program::Impl {
  Model model;
  std::shared_ptr<Device> device;
  ProgramOptions options;
  Graph graph;  ///< after the device's passes
  std::shared_ptr<const ir::Graph> ir;
  std::vector<IndexBound> bounds;  ///< what calls must be checked for
  WeightStore weights;

  Impl(Model m, std::shared_ptr<Device> d, const ProgramOptions& o,
       std::shared_ptr<const ir::Graph> i, std::vector<IndexBound> b,
       std::shared_ptr<const WeightSource> source);

  /// The plan for a call's bucket; made on first need, then shared.
  Result<std::shared_ptr<const Plan>> plan(const Sizes& sizes);

 private:
  std::mutex mutex_;
  std::map<Sizes, std::shared_ptr<const Plan>> plans_;
};

}  // namespace krait
