// What a Program holds: everything about (model, device) that sessions share.
#pragma once

#include <map>
#include <memory>
#include <mutex>

#include "runtime/plan/plan.h"
#include "runtime/plan/weight_store.h"
#include <krait/session.h>

namespace krait {

struct Program::Impl {
  Model model;
  std::shared_ptr<Device> device;
  Graph graph;  ///< after the device's passes
  std::shared_ptr<const ir::Graph> ir;
  WeightStore weights;

  Impl(Model m, std::shared_ptr<Device> d, Graph g, std::shared_ptr<const ir::Graph> i,
       std::shared_ptr<const WeightSource> source);

  /// The plan for a call's bucket; made on first need, then shared.
  Result<std::shared_ptr<const Plan>> plan(const Sizes& sizes);

 private:
  std::mutex mutex_;
  std::map<Sizes, std::shared_ptr<const Plan>> plans_;
};

}  // namespace krait
