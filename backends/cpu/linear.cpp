// linear on the CPU, and the layout of its weights.
#include <algorithm>
#include <cstring>

#include "backends/cpu/kernel.h"

namespace krait::cpu {
namespace {

// A block of work: weights of this many panels are read once for this many tokens.
constexpr std::int64_t kBlockPanels = 4;
constexpr std::int64_t kBlockTokens = 96;

void linear(const Call& call, const Run& run) {
  const auto [x, w, bias] = call.in<3>();
  const TensorView& y = call.outputs[0];
  LinearArgs args;
  args.x = rows_of(x);
  args.w = w.as<const std::byte>();
  args.weight = w.dtype;
  args.bias = vector_of(bias);
  args.y = rows_out(y);
  args.inputs = x.dim[1];
  args.outputs = y.dim[1];
  const std::int64_t tokens = x.dim[0];
  const std::int64_t panels = blocks_of(args.outputs, kPanel);
  const std::int64_t token_blocks = blocks_of(tokens, kBlockTokens);
  run.pool.parallel_for(blocks_of(panels, kBlockPanels) * token_blocks, [&](std::int64_t block) {
    const std::int64_t p = block / token_blocks * kBlockPanels;
    const std::int64_t t = block % token_blocks * kBlockTokens;
    run.isa.linear(args, t, std::min(t + kBlockTokens, tokens), p,
                   std::min(p + kBlockPanels, panels));
  });
}

template <class Element>
void pack(const TensorView& stored, std::byte* packed) {
  const std::int64_t outputs = stored.dim[0], inputs = stored.dim[1], row = stored.stride[0];
  auto* panel = reinterpret_cast<Element*>(packed);
  for (std::int64_t o0 = 0; o0 < outputs; o0 += kPanel, panel += inputs * kPanel) {
    const Element* rows = stored.as<const Element>() + o0 * row;
    const std::int64_t count = std::min(kPanel, outputs - o0);
    if (count < kPanel) std::fill_n(panel, inputs * kPanel, Element{});
    for (std::int64_t i = 0; i < inputs; ++i) {
      for (std::int64_t o = 0; o < count; ++o) panel[i * kPanel + o] = rows[o * row + i];
    }
  }
}

const WeightLayout kPanels{
    .name = "panels",
    .bytes =
        [](const TensorView& stored) {
          return bytes_of(stored.dtype, blocks_of(stored.dim[0], kPanel) * kPanel * stored.dim[1]);
        },
    .view =
        [](const TensorView& stored) {
          return dense_view(nullptr, stored.dtype,
                            {blocks_of(stored.dim[0], kPanel), stored.dim[1], kPanel});
        },
    .pack =
        [](const TensorView& stored, std::byte* packed) {
          info(stored.dtype).block_bytes == 4 ? pack<std::uint32_t>(stored, packed)
                                              : pack<std::uint16_t>(stored, packed);
        },
};

const WeightLayout* weight_layout(const Call&, int i) {
  return i == 1 ? panel_layout() : nullptr;
}

}  // namespace

const WeightLayout* panel_layout() {
  return &kPanels;
}

extern const CpuKernel linear_kernel{.op = "linear", .run = linear, .layout = weight_layout};

}  // namespace krait::cpu
