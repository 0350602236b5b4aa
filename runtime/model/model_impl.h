// What a Model holds, for the modules that run it.
#pragma once

#include <memory>
#include <mutex>
#include <string>

#include "runtime/model/checkpoint.h"
#include <krait/model.h>

namespace krait {

struct Model::Impl {
  ModelInfo info;
  Graph graph;
  std::shared_ptr<const Checkpoint> checkpoint;

  mutable std::mutex fingerprint_mutex;
  mutable std::string fingerprint;  ///< empty until first asked for

  Impl(ModelInfo i, Graph g, std::shared_ptr<const Checkpoint> c)
      : info(std::move(i)), graph(std::move(g)), checkpoint(std::move(c)) {}
};

}  // namespace krait
