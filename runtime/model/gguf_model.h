// GGUF files of Mamba models under the names and shapes of Hugging Face's checkpoints.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "runtime/core/json.h"
#include "runtime/model/gguf.h"
#include <krait/status.h>

namespace krait {

/// What makes a Checkpoint (checkpoint.h) of a file. `mixer.A` stands for A_log: it holds
/// −exp(A_log). Tensors that the architecture does not have keep the name the file gives them.
struct GgufModel {  // NOLINT(bugprone-exception-escape): a null Json throws nothing
  Json config;
  std::vector<NamedTensor> tensors;
};

/// Architectures mamba (Mamba-1, and FalconMamba) and mamba2. Others are unsupported.
Result<GgufModel> read_gguf_model(const GgufFile& file);

/// The name in a GGUF file of architecture mamba of a tensor called `name` by Hugging Face or
/// mamba_ssm; both A and A_log become ssm_a. Empty for tensors that such files do not have.
std::string gguf_tensor_name(std::string_view name);

}  // namespace krait
