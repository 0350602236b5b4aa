#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <thread>

#include "runtime/core/blocks.h"
#include "runtime/core/convert.h"
#include "runtime/core/json.h"
#include "runtime/core/try.h"
#include "runtime/model/config.h"
#include "runtime/model/gguf_model.h"
#include "runtime/model/gguf_tokenizer.h"
#include "runtime/model/gguf_writer.h"
#include "runtime/model/model_impl.h"
#include "runtime/model/weight_type.h"
#include <krait/quantize.h>

namespace krait {
namespace {

/// general.file_type: what most of the file is, by llama.cpp's numbers.
std::optional<std::uint32_t> file_type(DType type) {
  switch (type) {
    case DType::f32:
      return 0;
    case DType::f16:
      return 1;
    case DType::bf16:
      return 32;
    case DType::q8_0:
      return 7;
    case DType::q4_0:
      return 2;
    case DType::q4_1:
      return 3;
    case DType::q5_0:
      return 8;
    case DType::q5_1:
      return 9;
    case DType::q4_k:
      return 15;
    case DType::q5_k:
      return 17;
    case DType::q6_k:
      return 18;
    default:
      return std::nullopt;
  }
}

/// Sets `to` and `reason`, by what the tensor is for.
void choose_type(const MambaConfig& config, DType wanted, QuantizedTensor& tensor) {
  const bool is_embedding = tensor.name == "token_embd.weight";
  const bool is_head = tensor.name == "output.weight" || (is_embedding && config.tied_head);
  const bool is_matrix = is_embedding || is_head || tensor.name.ends_with("ssm_in.weight") ||
                         tensor.name.ends_with("ssm_x.weight") ||
                         tensor.name.ends_with("ssm_dt.weight") ||
                         tensor.name.ends_with("ssm_out.weight");
  tensor.to = is_matrix ? wanted : DType::f32;
  if (!is_matrix) {
    if (wanted != DType::f32) tensor.reason = "not a matrix of a product";
    return;
  }
  const std::int64_t row = tensor.shape[tensor.shape.rank() - 1].value;
  const WeightType chosen = weight_type(wanted, row, is_head);
  tensor.to = chosen.type;
  tensor.reason = chosen.reason;
  if (is_embedding && is_head && chosen.reason == "the head")
    tensor.reason = "the embedding is the head as well";
}

/// Converts tensors on several threads, each taking the next rows.
class Converter {
 public:
  Converter(const QuantizeOptions& options, std::int64_t total)
      : threads_(options.threads > 0 ? static_cast<unsigned>(options.threads)
                                     : std::max(std::thread::hardware_concurrency(), 1u)),
        progress_(options.progress),
        total_(total) {}

  /// `from` and `to` are dense, of one shape.
  Status convert_tensor(std::string_view name, const TensorView& from, const TensorView& to) {
    const std::int64_t row = from.dim[static_cast<std::size_t>(from.rank - 1)];
    const std::int64_t rows = row > 0 ? from.elements() / row : 0;
    const std::int64_t step = std::max<std::int64_t>(kChunk / std::max<std::int64_t>(row, 1), 1);
    std::atomic<std::int64_t> next{0};
    const auto work = [&](bool reports) {
      return guarded([&]() -> Status {
        std::vector<float> values;
        for (std::int64_t r; (r = next.fetch_add(step)) < rows;) {
          const std::int64_t count = std::min(step, rows - r);
          KRAIT_TRY(convert_rows(name, part(from, r, count, row), part(to, r, count, row), values));
          if (reports && progress_) progress_(done_ + std::min(next.load(), rows) * row, total_);
        }
        return {};
      });
    };
    const std::int64_t chunks = std::max<std::int64_t>((rows + step - 1) / step, 1);
    const auto helpers = static_cast<std::size_t>(std::min<std::int64_t>(threads_, chunks) - 1);
    std::vector<Status> results(helpers + 1);  // never moved while helpers write to it
    {
      std::vector<std::jthread> threads;
      for (std::size_t i = 0; i < helpers; ++i)
        threads.emplace_back([&, i] { results[i] = work(false); });
      results.back() = work(true);
    }
    for (Status& result : results) KRAIT_TRY(std::move(result));
    done_ += from.elements();
    return {};
  }

 private:
  static constexpr std::int64_t kChunk = 1 << 16;  // elements that a thread takes at a time

  static TensorView part(const TensorView& whole, std::int64_t first, std::int64_t count,
                         std::int64_t row) {
    return dense_view(whole.memory, whole.dtype, {count, row},
                      whole.offset + bytes_of(whole.dtype, first * row));
  }

  /// What the type cannot hold is an error, not a number of another size.
  static Status convert_rows(std::string_view name, const TensorView& from, const TensorView& to,
                             std::vector<float>& values) {
    if (!is_block(to.dtype) && to.dtype != DType::f16) return convert(from, to);
    values.resize(static_cast<std::size_t>(from.elements()));
    const TensorView floats = dense_view(values.data(), DType::f32, shape_of(from));
    KRAIT_TRY(convert(from, floats));
    constexpr float kLargest = 65504;
    for (const float value : values) {
      if (!(std::fabs(value) <= kLargest))
        return corrupt("tensor ", shown(name), " holds ", value, ", which ", krait::name(to.dtype),
                       " cannot express; choose bf16 or f32, or repair the model");
    }
    return convert(floats, to);
  }

  unsigned threads_;
  const std::function<void(std::int64_t, std::int64_t)>& progress_;
  std::int64_t total_, done_ = 0;
};

/// A tensor of the source, and what becomes of it.
struct Item {
  const CheckpointTensor* source;
  QuantizedTensor target;
  std::int64_t layer;
};

Result<std::vector<Item>> plan_tensors(const Checkpoint& checkpoint, const MambaConfig& config,
                                       DType type) {
  std::vector<Item> items;
  for (const CheckpointTensor& tensor : checkpoint.tensors()) {
    Item item{&tensor, {gguf_tensor_name(tensor.name), tensor.shape, tensor.dtype, {}, {}}, -1};
    if (item.target.name.empty())
      return unsupported("tensor ", shown(tensor.name), " has no place in a GGUF file");
    if (!tensor.data) return invalid("tensor ", shown(tensor.name), " has no data");
    if (const Shape& shape = tensor.shape; shape.rank() == 3)  // conv1d: [D, 1, K]
      item.target.shape = {shape[0], shape[2]};
    choose_type(config, type, item.target);
    if (item.target.name.starts_with("blk.")) item.layer = std::stoll(item.target.name.substr(4));
    items.push_back(std::move(item));
  }
  std::ranges::stable_sort(items, {}, [](const Item& item) {
    return std::pair(item.layer, std::string_view(item.target.name));
  });
  return items;
}

/// The keys that llama.cpp demands of architecture mamba.
void describe(const MambaConfig& config, const std::string& model_name, GgufMetadata& metadata) {
  const auto whole = [&](std::string_view key, std::int64_t value) {
    metadata.add(key, static_cast<std::uint32_t>(value));
  };
  metadata.add("general.architecture", "mamba");
  metadata.add("general.type", "model");
  metadata.add("general.name", std::string_view(model_name));
  whole("mamba.context_length", 1 << 20);  // there is no limit; converters write this
  whole("mamba.embedding_length", config.d_model);
  whole("mamba.feed_forward_length", 0);
  whole("mamba.attention.head_count", 0);
  whole("mamba.block_count", config.n_layer);
  whole("mamba.ssm.conv_kernel", config.d_conv);
  whole("mamba.ssm.inner_size", config.d_inner);
  whole("mamba.ssm.state_size", config.d_state);
  whole("mamba.ssm.time_step_rank", config.dt_rank);
  metadata.add("mamba.attention.layer_norm_rms_epsilon", static_cast<float>(config.norm_eps));
  metadata.add("mamba.ssm.dt_b_c_rms", config.mixer_rms_eps.has_value());
  if (config.mixer_rms_eps)
    metadata.add("krait.mixer_rms_eps", static_cast<float>(*config.mixer_rms_eps));
}

/// The tokenizer beside the model; what is wrong with it is said in the report.
void add_tokenizer(const Checkpoint& checkpoint, const MambaConfig& config, GgufMetadata& metadata,
                   QuantizeReport& report) {
  const Result<std::string> json = checkpoint.read_sibling("tokenizer.json");
  if (!json.ok()) {
    report.tokenizer_problem = "no tokenizer: " + json.message();
    return;
  }
  GgufVocabulary vocabulary{config.vocab_size, config.bos_id, {}};
  if (!config.eos_ids.empty()) vocabulary.eos = config.eos_ids.front();
  const Result<bool> for_llama_cpp = add_gguf_tokenizer(*json, vocabulary, metadata);
  if (!for_llama_cpp.ok())
    report.tokenizer_problem = "no tokenizer: " + for_llama_cpp.message();
  else if (!*for_llama_cpp)
    report.tokenizer_problem =
        "GGUF's arrays cannot express the tokenizer; the file holds its tokenizer.json, which "
        "Krait reads and llama.cpp does not";
}

GgufMetadata make_metadata(const Model::Impl& model, const MambaConfig& config, DType type,
                           QuantizeReport& report) {
  GgufMetadata metadata;
  if (const GgufFile* gguf = model.checkpoint->gguf()) {
    for (const auto& [key, value] : gguf->metadata()) {
      if (key != "general.file_type" && key != "general.quantization_version" &&
          key != "general.alignment")
        metadata.add(key, value);
    }
  } else {
    describe(config, model.info.name, metadata);
    add_tokenizer(*model.checkpoint, config, metadata, report);
  }
  metadata.add("general.quantization_version", std::uint32_t{2});
  metadata.add("general.file_type", *file_type(type));
  return metadata;
}

}  // namespace

Result<QuantizeReport> quantize_model(const Model& model, const std::filesystem::path& path,
                                      const QuantizeOptions& options) {
  return guarded([&]() -> Result<QuantizeReport> {
    if (!file_type(options.type))
      return invalid("weights: expected f32, f16, bf16 or a block type, got ", name(options.type));
    const Checkpoint& checkpoint = *model.impl().checkpoint;
    KRAIT_ASSIGN(const MambaConfig config, parse_mamba_config(checkpoint.config(), checkpoint));
    KRAIT_ASSIGN(std::vector<Item> items, plan_tensors(checkpoint, config, options.type));
    QuantizeReport report;
    const GgufMetadata metadata = make_metadata(model.impl(), config, options.type, report);

    std::vector<NamedTensor> tensors;
    std::int64_t elements = 0;
    for (const Item& item : items) {
      const std::int64_t count = item.source->shape.elements();
      const QuantizedTensor& target = item.target;
      tensors.push_back(
          {target.name, target.to, target.shape, nullptr, bytes_of(target.to, count), {}});
      report.tensors.push_back(target);
      report.bytes_before += item.source->bytes;
      report.bytes += tensors.back().bytes;
      elements += count;
    }

    Converter converter(options, elements);
    std::vector<std::byte> bytes;
    const auto make = [&](std::size_t i) -> Result<std::span<const std::byte>> {
      const CheckpointTensor& source = *items[i].source;
      bytes.resize(static_cast<std::size_t>(tensors[i].bytes));
      // convert() reads only; a view has no const.
      auto* data = const_cast<std::byte*>(source.data);
      TensorView from = dense_view(data, source.dtype, tensors[i].shape);
      const TensorView to = dense_view(bytes.data(), tensors[i].dtype, tensors[i].shape);
      KRAIT_TRY(converter.convert_tensor(source.name, from, to));
      if (source.name.ends_with("mixer.A_log")) {
        // A = −exp(A_log); both are float32 by now.
        for (float& a : std::span(to.as<float>(), static_cast<std::size_t>(to.elements())))
          a = static_cast<float>(-std::exp(static_cast<double>(a)));
      }
      checkpoint.release(source);
      return std::span<const std::byte>(bytes);
    };
    KRAIT_TRY(write_gguf(path, metadata, tensors, make));
    return report;
  });
}

}  // namespace krait
