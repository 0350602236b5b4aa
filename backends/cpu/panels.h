// Weights in panels (isa.h, block_panels.h): the layout, and the arguments of kernels that read it.
#pragma once

#include <algorithm>

#include "backends/cpu/kernel.h"

namespace krait::cpu {

/// Every weight of a matrix product lies in panels, and so does a table that an embedding reads,
/// since that is often the same tensor.
const WeightLayout* panel_layout();

/// Of a call of linear.
LinearArgs linear_args(const Call& call);

/// Calls body(t0, t1, p0, p1) for blocks of tokens and panels, shared among threads.
template <class Body>
void for_blocks(ThreadPool& pool, const Call& call, const Body& body) {
  const std::int64_t tokens = call.outputs[0].dim[0];
  const std::int64_t panels = blocks_of(call.outputs[0].dim[1], kPanel);
  // A narrow matrix would leave threads without a block.
  const std::int64_t step = panels >= 8 * kBlockPanels ? kBlockPanels : 1;
  const std::int64_t token_blocks = blocks_of(tokens, kBlockTokens);
  pool.parallel_for(blocks_of(panels, step) * token_blocks, [&](std::int64_t block) {
    const std::int64_t p = block / token_blocks * step;
    const std::int64_t t = block % token_blocks * kBlockTokens;
    body(t, std::min(t + kBlockTokens, tokens), p, std::min(p + step, panels));
  });
}

/// Bytes of one panel of rows of so many inputs.
std::int64_t panel_bytes(DType type, std::int64_t inputs);

}  // namespace krait::cpu
