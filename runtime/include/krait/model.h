// Models: a graph and its weights, read from a checkpoint or made by an embedder.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <krait/export.h>
#include <krait/graph.h>
#include <krait/status.h>
#include <krait/tensor.h>
#include <krait/tokenizer.h>

namespace krait {

struct ModelInfo {
  std::string name;          ///< the folder's name, or what made the model
  std::string architecture;  ///< "mamba", "falcon_mamba"; "graph" for an embedder's own
  std::int64_t d_model = 0;
  std::int64_t n_layer = 0;
  std::int64_t vocab_size = 0;  ///< rows of the embedding: ids from 0 to vocab_size − 1 are valid
  std::int64_t parameters = 0;
  std::int64_t bytes = 0;         ///< of all weights as stored
  std::string weights;            ///< the type that most of those bytes have: "bf16"
  std::vector<std::int32_t> eos;  ///< ids that end a text
};

/// A weight of an embedder's own graph: dense, in host memory, and copied.
struct Weight {
  std::string_view name;
  TensorView tensor;
};

/// Immutable and cheap to copy; sessions on any number of devices and threads share it.
class KRAIT_API Model {
 public:
  /// A folder as Hugging Face or mamba_ssm publish it: config.json with model.safetensors or
  /// shards; or a GGUF file, or a folder with one. Tensors stay in the mapped files: replace those
  /// by renaming another over them, since the system ends a process (SIGBUS) that reads a mapped
  /// file which has been cut short. Errors: not_found, corrupt, unsupported.
  static Result<Model> load(const std::filesystem::path& path);
  /// A graph of one's own. Every weight the graph names must be given, in the declared type and
  /// number of elements.
  static Result<Model> from_graph(const Graph& graph, std::span<const Weight> weights);
  /// A published shape with random weights, for benchmarks: mamba-130m, mamba-370m, mamba-790m,
  /// mamba-1.4b, mamba-2.8b.
  static Result<Model> random(std::string_view shape, DType weights, std::uint64_t seed = 0);

  const ModelInfo& info() const;
  /// As built, before any device's passes.
  const Graph& graph() const;
  /// The tokenizer in the GGUF file or beside the checkpoint; not_found if there is none.
  Result<Tokenizer> tokenizer() const;
  /// Architecture, configuration and content of all tensors in 32 hexadecimal digits. Reads every
  /// weight the first time; state files carry it.
  Result<std::string> fingerprint() const;

  struct Impl;
  const Impl& impl() const { return *impl_; }
  explicit Model(std::shared_ptr<const Impl> impl) : impl_(std::move(impl)) {}

 private:
  std::shared_ptr<const Impl> impl_;
};

}  // namespace krait
