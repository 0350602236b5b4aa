// The weights of one model on one device: each tensor packed once per layout, shared by all plans.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "backends/backend.h"
#include "graph/ir.h"

namespace krait {

/// Where weights come from: a checkpoint, an embedder's arrays, a random generator.
class WeightSource {
 public:
  virtual ~WeightSource() = default;
  /// The tensor in host memory, dense, aligned to its elements; valid as long as the source.
  virtual Result<TensorView> find(std::string_view name) const = 0;
  /// The tensor was copied elsewhere and will not be read again soon.
  virtual void release(std::string_view) const {}
};

class WeightStore {
 public:
  WeightStore(std::shared_ptr<const WeightSource> source, std::shared_ptr<Device> device)
      : source_(std::move(source)), device_(std::move(device)) {}

  /// A weight, or the result of a constant node, as `layout` wants it (null: as stored). Packs or
  /// computes it the first time. Safe from several threads.
  Result<TensorView> get(const ir::Graph& graph, ir::Id value, const WeightLayout* layout);
  /// Bytes that this store allocated; mapped files do not count.
  std::int64_t allocated_bytes() const;

 private:
  struct Host {  ///< a tensor on the host, owned or in the source
    TensorView view;
    std::unique_ptr<Buffer> owned;
  };
  Result<Host> evaluate(const ir::Graph& graph, const std::vector<int>& producers,
                        ir::Id value) const;
  Result<TensorView> place(Host host, const WeightLayout* layout);

  std::shared_ptr<const WeightSource> source_;
  std::shared_ptr<Device> device_;
  mutable std::mutex mutex_;
  std::map<std::string, TensorView> packed_;  ///< by recipe and layout
  std::vector<std::unique_ptr<Buffer>> buffers_;
};

/// How a constant is computed: "backbone.norm_f.weight", "neg(exp(backbone.layers.0.mixer.A_log))".
std::string recipe(const ir::Graph& graph, const std::vector<int>& producers, ir::Id value);

}  // namespace krait
