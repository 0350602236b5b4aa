#include "runtime/model/mamba.h"

#include "runtime/core/try.h"

namespace krait {
namespace {

/// One block: x + out_proj(scan(conv(in_proj(norm(x))))). Gu and Dao 2023, figure 3.
class Builder {
 public:
  Builder(const MambaConfig& config, const Checkpoint& checkpoint)
      : config_(config), checkpoint_(checkpoint), graph_(std::string(name(config.family))) {}

  Result<Graph> build() {
    const MambaConfig& c = config_;
    const Value tokens = graph_.input("tokens", DType::i32, {dims::T});
    starts_ = graph_.input("starts", DType::i32, {dims::starts});
    slot_in_ = graph_.input("slot_in", DType::i32, {dims::S});
    slot_out_ = graph_.input("slot_out", DType::i32, {dims::S});
    const Value rows = graph_.input("rows", DType::i32, {dims::M});
    const Value table = weight(c.embedding, {c.vocab_size, c.d_model});
    Value x = graph_.op("embedding", {{"ids", tokens}, {"table", table}});
    for (std::int64_t layer = 0; layer < c.n_layer; ++layer) {
      x = graph_.op("add", {{"x", x}, {"y", mixer(layer, norm(layer, x))}});
    }
    // Only the rows that need logits go through the last norm and the head.
    x = graph_.op("gather_rows", {{"x", x}, {"rows", rows}});
    x = graph_.op("rms_norm",
                  {{"x", x}, {"weight", parameter("backbone.norm_f.weight", {c.d_model})}},
                  {{"eps", c.norm_eps}});
    const Value head = c.tied_head ? table : weight("lm_head.weight", {c.vocab_size, c.d_model});
    graph_.output("logits", graph_.op("linear", {{"x", x}, {"w", head}}));
    return graph_.build();
  }

 private:
  Value norm(std::int64_t layer, Value x) {
    const std::string name = cat("backbone.layers.", layer, ".norm.weight");
    return graph_.op("rms_norm", {{"x", x}, {"weight", parameter(name, {config_.d_model})}},
                     {{"eps", config_.norm_eps}});
  }

  Value mixer(std::int64_t layer, Value x) {
    const MambaConfig& c = config_;
    prefix_ = cat("backbone.layers.", layer, ".mixer.");
    const std::string state = cat("layers.", layer, ".");

    const Value xz = linear("in_proj", x, 2 * c.d_inner, c.d_model);
    const Value z = graph_.slice(xz, c.d_inner, c.d_inner);
    const Value conv =
        graph_.op("causal_conv1d",
                  {{"x", graph_.slice(xz, 0, c.d_inner)},
                   {"w", parameter(prefix_ + "conv1d.weight", {c.d_inner, c.d_conv})},
                   {"bias", optional_parameter(prefix_ + "conv1d.bias", {c.d_inner})},
                   {"state", graph_.state(state + "conv", {dims::C, c.d_inner, c.d_conv - 1})},
                   {"starts", starts_},
                   {"slot_in", slot_in_},
                   {"slot_out", slot_out_}});
    const Value u = graph_.op("silu", {{"x", conv}});

    const Value dt_B_C = linear("x_proj", u, c.dt_rank + 2 * c.d_state, c.d_inner);
    const Value dt_low = small_norm(graph_.slice(dt_B_C, 0, c.dt_rank));
    const Value B = small_norm(graph_.slice(dt_B_C, c.dt_rank, c.d_state));
    const Value C = small_norm(graph_.slice(dt_B_C, c.dt_rank + c.d_state, c.d_state));
    // dt = softplus(dt_proj(dt_low) + dt_bias): the bias of dt_proj is dt's.
    Value dt = graph_.op(
        "linear",
        {{"x", dt_low}, {"w", weight(prefix_ + "dt_proj.weight", {c.d_inner, c.dt_rank})}});
    if (const Value bias = optional_parameter(prefix_ + "dt_proj.bias", {c.d_inner})) {
      dt = graph_.op("add", {{"x", dt}, {"y", bias}});
    }
    dt = graph_.op("softplus", {{"x", dt}});
    Value A = parameter(prefix_ + c.a_name, {c.d_inner, c.d_state});
    if (c.a_name == "A_log") A = graph_.op("neg", {{"x", graph_.op("exp", {{"x", A}})}});

    Value y = graph_.op("selective_scan",
                        {{"u", u},
                         {"dt", dt},
                         {"A", A},
                         {"B", graph_.op("split", {{"x", B}}, {{"parts", 1.0}})},
                         {"C", graph_.op("split", {{"x", C}}, {{"parts", 1.0}})},
                         {"state", graph_.state(state + "ssm", {dims::C, c.d_inner, c.d_state})},
                         {"starts", starts_},
                         {"slot_in", slot_in_},
                         {"slot_out", slot_out_}});
    const Value D = parameter(prefix_ + "D", {c.d_inner});
    y = graph_.op("add", {{"x", y}, {"y", graph_.op("mul", {{"x", u}, {"y", D}})}});
    y = graph_.op("mul", {{"x", y}, {"y", graph_.op("silu", {{"x", z}})}});
    return linear("out_proj", y, c.d_model, c.d_inner);
  }

  /// FalconMamba normalises dt, B and C, without weights.
  Value small_norm(Value x) {
    if (!config_.mixer_rms_eps) return x;
    return graph_.op("rms_norm", {{"x", x}}, {{"eps", *config_.mixer_rms_eps}});
  }

  Value linear(std::string_view name, Value x, std::int64_t out, std::int64_t in) {
    const std::string base = prefix_ + std::string(name);
    return graph_.op("linear", {{"x", x},
                                {"w", weight(base + ".weight", {out, in})},
                                {"bias", optional_parameter(base + ".bias", {out})}});
  }

  DType stored(const std::string& name) const {
    const CheckpointTensor* tensor = checkpoint_.find(name);
    return tensor ? tensor->dtype : DType::f32;  // a missing tensor is reported when it is packed
  }
  Value weight(const std::string& name, const Shape& shape) {
    return graph_.weight(name, stored(name), shape);
  }
  Value parameter(const std::string& name, const Shape& shape) {
    return graph_.parameter(name, stored(name), shape);
  }
  /// No value where the file has no such tensor: its presence decides, not the configuration.
  Value optional_parameter(const std::string& name, const Shape& shape) {
    return checkpoint_.find(name) ? parameter(name, shape) : Value{};
  }

  const MambaConfig& config_;
  const Checkpoint& checkpoint_;
  GraphBuilder graph_;
  Value starts_, slot_in_, slot_out_;
  std::string prefix_;
};

}  // namespace

Result<Graph> build_mamba(const MambaConfig& config, const Checkpoint& checkpoint) {
  return Builder(config, checkpoint).build();
}

}  // namespace krait
