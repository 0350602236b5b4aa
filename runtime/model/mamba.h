// The graph of Mamba-1 models: mamba, falcon_mamba and the original mamba_ssm layout.
#pragma once

#include "runtime/model/checkpoint.h"
#include "runtime/model/config.h"
#include <krait/graph.h>

namespace krait {

/// Inputs: tokens i32[T], starts i32[S+1], slot_in and slot_out i32[S], rows i32[M]. Output: logits
/// f32[M, V]. States per layer: conv f32[C, d_inner, d_conv−1] and ssm f32[C, d_inner, d_state].
Result<Graph> build_mamba(const MambaConfig& config, const Checkpoint& checkpoint);

}  // namespace krait
