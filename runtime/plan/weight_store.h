// The weights of one model on one device: each tensor packed once per layout, shared by all plans.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string_view>
#include <utility>
#include <vector>

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
  /// The same of some of its bytes.
  virtual void release_part(std::string_view, std::int64_t offset, std::int64_t bytes) const {
    (void)offset, (void)bytes;
  }
};

class WeightStore {
 public:
  WeightStore(std::shared_ptr<const ir::Graph> graph, std::shared_ptr<const WeightSource> source,
              std::shared_ptr<Device> device)
      : graph_(std::move(graph)), source_(std::move(source)), device_(std::move(device)) {}

  /// A weight of the graph, or the result of a constant node, as `layout` wants it (null: as
  /// stored). Packs or computes it the first time. Safe from several threads.
  Result<TensorView> get(ir::Id value, const WeightLayout* layout);
  /// `placed` is called with the bytes of every value that get() places first; null for nobody.
  void observe(std::function<void(std::int64_t bytes)> placed);
  /// Bytes that this store allocated; mapped files do not count.
  std::int64_t allocated_bytes() const;

 private:
  struct Host {  ///< a tensor on the host, owned or in the source
    TensorView view;
    std::unique_ptr<Buffer> owned;
  };
  Result<TensorView> stored(const ir::Value& weight) const;
  Result<Host> evaluate(ir::Id value) const;
  void pack(const TensorView& stored, const WeightLayout& layout, std::string_view weight,
            std::byte* packed) const;
  Result<TensorView> place(Host host, const WeightLayout* layout, std::string_view weight);

  std::shared_ptr<const ir::Graph> graph_;
  std::shared_ptr<const WeightSource> source_;
  std::shared_ptr<Device> device_;
  mutable std::mutex mutex_;
  std::map<std::pair<ir::Id, std::string_view>, TensorView> packed_;  ///< by value and layout
  std::vector<std::unique_ptr<Buffer>> buffers_;
  std::function<void(std::int64_t)> placed_;
};

}  // namespace krait
