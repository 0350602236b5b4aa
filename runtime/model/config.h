// From config.json and the tensors' shapes to a checked configuration: one struct per family.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/core/json.h"
#include "runtime/model/checkpoint.h"
#include <krait/status.h>

namespace krait {

/// The architecture families that have a builder.
enum class Family { mamba, falcon_mamba };
std::string_view name(Family family);

/// Which family a configuration describes; unsupported, with the list of the known ones, for all
/// others. Takes Hugging Face's layout (model_type) and the original one of mamba_ssm.
Result<Family> family_of(const Json& config);

/// Mamba-1 and FalconMamba. Every extent lies in 1..2^24 and agrees with the shape of every tensor.
struct MambaConfig {
  Family family = Family::mamba;
  std::int64_t d_model = 0;     ///< width of the residual stream
  std::int64_t d_inner = 0;     ///< channels of the scan
  std::int64_t d_state = 0;     ///< state per channel
  std::int64_t d_conv = 0;      ///< taps of the convolution
  std::int64_t dt_rank = 0;     ///< width of dt before dt_proj
  std::int64_t n_layer = 0;     ///< layers
  std::int64_t vocab_size = 0;  ///< rows of the embedding, padding included
  double norm_eps = 1e-5;
  /// FalconMamba: the eps of the weightless RMS norms on dt, B and C after x_proj.
  std::optional<double> mixer_rms_eps;
  bool residual_in_fp32 = true;

  // Which optional tensors there are: the same ones in every layer.
  bool conv_bias = false;
  bool in_proj_bias = false;
  bool out_proj_bias = false;
  bool tied_head = true;  ///< the embedding is the head: there is no lm_head.weight
  std::string embedding;  ///< the name of its tensor, which differs between the layouts
  /// The last part of the name of A's tensors: GGUF files hold A = −exp(A_log) instead.
  std::string a_name = "A_log";

  std::optional<std::int64_t> bos_id;
  std::vector<std::int64_t> eos_ids;
};

/// Parses and checks. The tensors decide: what the configuration leaves out is read from their
/// shapes, and what it says must agree with them. Every tensor of a Mamba-1 model must be there, in
/// a type that its op takes (block types for matrices only), and none that such a model does not
/// have. The activation is silu, or the model is unsupported.
Result<MambaConfig> parse_mamba_config(const Json& config, const Checkpoint& checkpoint);

}  // namespace krait
