#include <cstdio>
#include <cstring>
#include <map>
#include <xxhash.h>

#include "graph/ir.h"
#include "runtime/core/try.h"
#include "runtime/model/config.h"
#include "runtime/model/mamba.h"
#include "runtime/model/model_impl.h"
#include "runtime/model/random.h"
#include <krait/model.h>

namespace krait {
namespace {

/// Counts of the tensors that the graph uses, and the type that most bytes have.
void count_weights(const Checkpoint& checkpoint, ModelInfo& info) {
  std::map<DType, std::int64_t> bytes;
  for (const CheckpointTensor& tensor : checkpoint.tensors()) {
    if (!tensor.problem.empty()) continue;
    info.parameters += tensor.shape.elements();
    info.bytes += tensor.bytes;
    bytes[tensor.dtype] += tensor.bytes;
  }
  std::int64_t most = -1;
  for (const auto& [dtype, count] : bytes) {
    if (count <= most) continue;
    most = count;
    info.weights = name(dtype);
  }
}

Result<Model> from_checkpoint(std::shared_ptr<const Checkpoint> checkpoint,
                              std::string model_name) {
  KRAIT_ASSIGN(const MambaConfig config, parse_mamba_config(checkpoint->config(), *checkpoint));
  KRAIT_ASSIGN(Graph graph, build_mamba(config, *checkpoint));
  ModelInfo info;
  info.name = std::move(model_name);
  info.architecture = graph.ir().name;
  info.d_model = config.d_model;
  info.n_layer = config.n_layer;
  info.vocab_size = config.vocab_size;
  for (const std::int64_t id : config.eos_ids) info.eos.push_back(static_cast<std::int32_t>(id));
  count_weights(*checkpoint, info);
  return Model(std::make_shared<const Model::Impl>(std::move(info), std::move(graph),
                                                   std::move(checkpoint)));
}

}  // namespace

Result<Model> Model::load(const std::filesystem::path& path) {
  return guarded([&]() -> Result<Model> {
    KRAIT_ASSIGN(std::shared_ptr<const Checkpoint> checkpoint, Checkpoint::open(path));
    std::error_code ignored;
    const std::filesystem::path full = std::filesystem::weakly_canonical(path, ignored);
    return from_checkpoint(std::move(checkpoint), (full.empty() ? path : full).filename().string());
  });
}

Result<Model> Model::from_graph(const Graph& graph, std::span<const Weight> weights) {
  return guarded([&]() -> Result<Model> {
    // One block holds the copies; every tensor begins on a cache line.
    std::int64_t total = 0;
    const auto padded = [](std::int64_t bytes) { return (bytes + 63) / 64 * 64; };
    for (const Weight& weight : weights) {
      if (!weight.tensor || !is_dense(weight.tensor)) {
        return invalid("weight ", weight.name, ": expected a dense tensor");
      }
      total += padded(bytes_of(weight.tensor.dtype, weight.tensor.elements()));
    }
    std::shared_ptr<std::byte> memory(
        static_cast<std::byte*>(
            ::operator new (static_cast<std::size_t>(total + 1), std::align_val_t{64})),
        [](std::byte* p) { ::operator delete (p, std::align_val_t{64}); });
    std::vector<CheckpointTensor> tensors;
    std::int64_t at = 0;
    for (const Weight& weight : weights) {
      const std::int64_t bytes = bytes_of(weight.tensor.dtype, weight.tensor.elements());
      std::memcpy(memory.get() + at, weight.tensor.as<const std::byte>(),
                  static_cast<std::size_t>(bytes));
      tensors.push_back({std::string(weight.name),
                         weight.tensor.dtype,
                         shape_of(weight.tensor),
                         memory.get() + at,
                         bytes,
                         {}});
      at += padded(bytes);
    }
    KRAIT_ASSIGN(std::shared_ptr<const Checkpoint> checkpoint,
                 Checkpoint::from_memory(Json::object(), std::move(tensors), memory));
    for (const ir::Value& value : graph.ir().values) {
      if (value.kind != ir::Kind::weight) continue;
      KRAIT_ASSIGN(const CheckpointTensor* tensor, checkpoint->get(value.name));
      const Type have{tensor->dtype, tensor->shape};
      if (have.dtype != value.type.dtype || have.shape.elements() != value.type.shape.elements()) {
        return invalid("weight ", value.name, ": expected ", to_string(value.type), ", got ",
                       to_string(have));
      }
    }
    ModelInfo info;
    info.name = graph.ir().name;
    info.architecture = "graph";
    count_weights(*checkpoint, info);
    return Model(
        std::make_shared<const Model::Impl>(std::move(info), graph, std::move(checkpoint)));
  });
}

const ModelInfo& Model::info() const {
  return impl_->info;
}
const Graph& Model::graph() const {
  return impl_->graph;
}

Result<Tokenizer> Model::tokenizer() const {
  return guarded([&] { return impl_->checkpoint->tokenizer(); });
}

Result<std::string> Model::fingerprint() const {
  return guarded([&]() -> Result<std::string> {
    const std::lock_guard lock(impl_->fingerprint_mutex);
    if (!impl_->fingerprint.empty()) return impl_->fingerprint;
    const std::unique_ptr<XXH3_state_t, decltype(&XXH3_freeState)> hash(XXH3_createState(),
                                                                        XXH3_freeState);
    if (!hash || XXH3_128bits_reset(hash.get()) != XXH_OK)
      return Status(Code::out_of_memory, "no memory to hash");
    // The graph says architecture and configuration, in one canonical text.
    const std::string text = impl_->graph.print();
    XXH3_128bits_update(hash.get(), text.data(), text.size());
    for (const ir::Value& value : impl_->graph.ir().values) {
      if (value.kind != ir::Kind::weight) continue;
      KRAIT_ASSIGN(const CheckpointTensor* tensor, impl_->checkpoint->get(value.name));
      XXH3_128bits_update(hash.get(), tensor->data, static_cast<std::size_t>(tensor->bytes));
    }
    const XXH128_hash_t digest = XXH3_128bits_digest(hash.get());
    char hex[33];
    std::snprintf(hex, sizeof hex, "%016llx%016llx", static_cast<unsigned long long>(digest.high64),
                  static_cast<unsigned long long>(digest.low64));
    return impl_->fingerprint = hex;
  });
}

Result<Model> Model::random(std::string_view shape, DType weights, std::uint64_t seed) {
  return guarded([&]() -> Result<Model> {
    KRAIT_ASSIGN(std::shared_ptr<const Checkpoint> checkpoint,
                 random_checkpoint(shape, weights, seed));
    return from_checkpoint(std::move(checkpoint), std::string(shape));
  });
}

}  // namespace krait
