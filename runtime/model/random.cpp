#include "runtime/model/random.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <new>

#include "runtime/core/convert.h"
#include "runtime/core/try.h"
#include "runtime/model/weight_type.h"

namespace krait {
namespace {

struct PublishedShape {
  std::string_view name;
  std::int64_t d_model, n_layer;
};
// state-spaces/mamba-*: N 16, K 4, expand 2, vocabulary 50277 padded to a multiple of 8.
constexpr PublishedShape kShapes[] = {{"mamba-130m", 768, 24},
                                      {"mamba-370m", 1024, 48},
                                      {"mamba-790m", 1536, 48},
                                      {"mamba-1.4b", 2048, 48},
                                      {"mamba-2.8b", 2560, 64}};

/// Random tensors as a checkpoint.
class RandomTensors {
 public:
  explicit RandomTensors(std::uint64_t seed) : state_(seed * 2 + 1) {}

  void add(std::string name, const Shape& shape, double low, double high,
           DType dtype = DType::f32) {
    const std::int64_t bytes = bytes_of(dtype, shape.elements());
    tensors_.push_back({std::move(name), dtype, shape, nullptr, bytes, {}});
    ranges_.emplace_back(low, high);
  }
  Result<std::shared_ptr<const Checkpoint>> finish(Json config);

 private:
  float next(double low, double high) {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;  // Knuth, MMIX
    return static_cast<float>(low + (high - low) * static_cast<double>(state_ >> 40) * 0x1p-24);
  }
  std::uint64_t state_;
  std::vector<CheckpointTensor> tensors_;
  std::vector<std::pair<double, double>> ranges_;
};

Result<std::shared_ptr<const Checkpoint>> RandomTensors::finish(Json config) {
  std::int64_t total = 1;
  for (const CheckpointTensor& tensor : tensors_) total += (tensor.bytes + 63) / 64 * 64;
  std::shared_ptr<std::byte> memory(
      static_cast<std::byte*>(
          ::operator new (static_cast<std::size_t>(total), std::align_val_t{64})),
      [](std::byte* p) { ::operator delete (p, std::align_val_t{64}); });
  std::byte* at = memory.get();
  for (std::size_t i = 0; i < tensors_.size(); ++i) {
    CheckpointTensor& tensor = tensors_[i];
    tensor.data = at;
    const std::int64_t count = tensor.shape.elements();
    const auto [low, high] = ranges_[i];
    // Random over a stretch, then repeated: filling gigabytes must not take minutes.
    constexpr std::int64_t kStretch = 65521;
    const std::int64_t block = info(tensor.dtype).block;
    const std::int64_t fresh = std::min(count, kStretch / block * block);
    std::vector<float> values(static_cast<std::size_t>(fresh));
    for (float& value : values) value = next(low, high);
    KRAIT_TRY(convert(dense_view(values.data(), DType::f32, {fresh}),
                      dense_view(at, tensor.dtype, {fresh})));
    const std::int64_t stretch_bytes = bytes_of(tensor.dtype, fresh);
    for (std::int64_t done = stretch_bytes; done < tensor.bytes; done += stretch_bytes) {
      std::memcpy(at + done, at,
                  static_cast<std::size_t>(std::min(stretch_bytes, tensor.bytes - done)));
    }
    at += (tensor.bytes + 63) / 64 * 64;
  }
  return Checkpoint::from_memory(std::move(config), std::move(tensors_), memory);
}

}  // namespace

Result<std::shared_ptr<const Checkpoint>> random_checkpoint(std::string_view shape, DType weights,
                                                            std::uint64_t seed) {
  const PublishedShape* found = nullptr;
  std::string known;
  for (const PublishedShape& candidate : kShapes) {
    if (candidate.name == shape) found = &candidate;
    known += (known.empty() ? "" : ", ") + std::string(candidate.name);
  }
  if (!found) return not_found("shape ", shape, " is not known; there are: ", known);
  if (!is_block(weights) && weights != DType::f32 && weights != DType::f16 &&
      weights != DType::bf16) {
    return invalid("weights: expected f32, f16, bf16 or a block type, got ", name(weights));
  }
  const std::int64_t d = found->d_model, di = 2 * d, N = 16, K = 4, R = (d + 15) / 16, V = 50280;
  RandomTensors tensors(seed);
  const auto matrix = [&](const std::string& tensor, std::int64_t out, std::int64_t in) {
    const double bound = 1 / std::sqrt(static_cast<double>(in));
    const bool is_head = out == V;  // the embedding, tied
    tensors.add(tensor, {out, in}, -bound, bound, weight_type(weights, in, is_head).type);
  };
  matrix("backbone.embeddings.weight", V, d);
  tensors.add("backbone.norm_f.weight", {d}, 0.9, 1.1);
  for (std::int64_t layer = 0; layer < found->n_layer; ++layer) {
    const std::string base = cat("backbone.layers.", layer, ".");
    tensors.add(base + "norm.weight", {d}, 0.9, 1.1);
    matrix(base + "mixer.in_proj.weight", 2 * di, d);
    tensors.add(base + "mixer.conv1d.weight", {di, 1, K}, -0.5, 0.5);
    tensors.add(base + "mixer.conv1d.bias", {di}, -0.5, 0.5);
    matrix(base + "mixer.x_proj.weight", R + 2 * N, di);
    matrix(base + "mixer.dt_proj.weight", di, R);
    tensors.add(base + "mixer.dt_proj.bias", {di}, -6.9, -2.3);
    tensors.add(base + "mixer.A_log", {di, N}, 0, 2.77);
    tensors.add(base + "mixer.D", {di}, 0.9, 1.1);
    matrix(base + "mixer.out_proj.weight", d, di);
  }
  Json config = {{"model_type", "mamba"},
                 {"hidden_size", d},
                 {"intermediate_size", di},
                 {"state_size", N},
                 {"conv_kernel", K},
                 {"time_step_rank", R},
                 {"num_hidden_layers", found->n_layer},
                 {"vocab_size", V},
                 {"layer_norm_epsilon", 1e-5},
                 {"eos_token_id", 0}};
  return tensors.finish(std::move(config));
}

}  // namespace krait
