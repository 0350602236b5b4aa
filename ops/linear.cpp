// linear: y = x wᵀ + bias.
#include <cmath>
#include <numeric>

#include "ops/case.h"
#include "ops/enums.h"
#include "ops/op.h"

namespace krait {

const Op linear_op{
    .name = "linear",
    .summary = "x wᵀ + bias; w in any storage type",
    .inputs = {{"x", "T I"}, {"w", "O I", Role::weight}, {"bias", "O", Role::wide, true}},
    .outputs = {{"y", "T O", Role::activation, "x"}},
    .attrs = {{"dtype", -1, kDTypes}},
    // y[t,o] = Σ_i x[t,i] w[o,i] + bias[o]
    .reference =
        [](const Call64& call) {
          const auto [x, w, bias] = call.in<3>();
          for (std::int64_t t = 0; t < x.dim[0]; ++t) {
            for (std::int64_t o = 0; o < w.dim[0]; ++o) {
              call.outputs[0](t, o) =
                  std::inner_product(x.row(t), x.row(t) + x.dim[1], w.row(o), bias ? bias(o) : 0.0);
            }
          }
        },
    // A sum of I products of independent terms is about √I of one; its partial sums are rounded I
    // times, errors adding as a random walk: √I · u relative to the sum. 4 for the worst of many
    // outputs, 4 for short sums. Weights are exact whatever their storage type: those of block
    // types once dequantised, which every kernel does in the same arithmetic
    // (runtime/core/blocks.h).
    //
    // A native product may round x to int8 in blocks of 32, or fewer, that share the step
    // d = max|x| / 127. The error of one x is spread evenly over ±d/2, so it is d/√12 in the mean
    // square; x drawn evenly from an interval has max|x| = √3 rms(x), so the error is rms(x) √3 /
    // (127 √12) = rms(x) / 254. Errors are independent: so much relative to rms(y) stays after the
    // sum, and 5 times that in the worst of a million outputs. Rounding to bfloat16 errs by 2⁻⁹ |x|
    // at most, which is less.
    .roundings =
        [](const Call& call) {
          const double sums = 4 + 4 * std::sqrt(static_cast<double>(call.inputs[1].dim[1]));
          return sums + (call.native ? 5.0 / 254 * 0x1p24 : 0);
        },
    .cost =
        [](const Call& call) {
          const auto elements = static_cast<double>(call.outputs[0].elements());
          return Cost{-1, 2 * elements * static_cast<double>(call.inputs[1].dim[1]), 0};
        },
    .cases = []() -> std::vector<Case> {
      return {
          {"one", {{'I', 1}, {'O', 1}}, {1}},
          {"odd", {{'I', 37}, {'O', 29}}, {7}},
          {"odd-token", {{'I', 67}, {'O', 131}}, {1}},
          {"blocks", {{'I', 256}, {'O', 65}}, {33}},
          {"small-blocks", {{'I', 96}, {'O', 37}}, {6}},
          {"two-blocks", {{'I', 512}, {'O', 31}}, {1, 4}},
          {"blocks-no-tokens", {{'I', 256}, {'O', 8}}, {0}},
          {"mamba-130m-in-proj", {{'I', 768}, {'O', 3072}}, {1}, {"bias"}},
          {"mamba-130m-x-proj", {{'I', 1536}, {'O', 80}}, {70}, {"bias"}},
          {"mamba-2.8b-x-proj", {{'I', 5120}, {'O', 192}}, {6}},
          {"split-tail", {{'I', 2088}, {'O', 37}}, {45}, {"bias"}},
          {"split-many", {{'I', 520}, {'O', 201}}, {61}},
          {"split-odd", {{'I', 523}, {'O', 34}}, {11}, {"bias"}},
          {"split-odd-batch", {{'I', 523}, {'O', 34}}, {20}, {"bias"}},
          {"split-odd-many", {{'I', 523}, {'O', 150}}, {50}, {"bias"}},
          {"mamba-2.8b-x-proj-token", {{'I', 5120}, {'O', 192}}, {1}},
          {"held-tail", {{'I', 2061}, {'O', 7}}, {1}, {"bias"}},
          {"held-many", {{'I', 1048}, {'O', 263}}, {1}, {"bias"}},
          {.name = "held-misaligned",
           .dims = {{'I', 1024}, {'O', 33}},
           .lengths = {1},
           .layout = Layout::misaligned},
          {"mamba-130m-out-proj", {{'I', 1536}, {'O', 768}}, {2}, {"bias"}},
          {"mamba-130m-dt-proj", {{'I', 48}, {'O', 1536}}, {19}},
          {"batch-tail", {{'I', 1544}, {'O', 333}}, {14}, {"bias"}},
          {"batch-many", {{'I', 200}, {'O', 517}}, {50}},
          {"short-tail", {{'I', 136}, {'O', 300}}, {37}, {"bias"}},
          {"short-odd", {{'I', 67}, {'O', 261}}, {21}, {"bias"}},
          {"short-odd-many", {{'I', 131}, {'O', 261}}, {21}},
          {.name = "strided",
           .dims = {{'I', 64}, {'O', 48}},
           .lengths = {5},
           .layout = Layout::strided},
          {.name = "misaligned",
           .dims = {{'I', 64}, {'O', 50}},
           .lengths = {9},
           .layout = Layout::misaligned},
          {.name = "strided-blocks",
           .dims = {{'I', 256}, {'O', 48}},
           .lengths = {5},
           .layout = Layout::strided},
          {.name = "misaligned-blocks",
           .dims = {{'I', 512}, {'O', 21}},
           .lengths = {3},
           .layout = Layout::misaligned},
          {"no-tokens", {{'I', 32}, {'O', 32}}, {0}},
          {.name = "nan", .dims = {{'I', 64}, {'O', 33}}, .lengths = {3}, .plant = {{"x", NAN}}},
          {.name = "infinity",
           .dims = {{'I', 64}, {'O', 33}},
           .lengths = {3},
           .plant = {{"x", INFINITY}}},
          {.name = "wide-nan",
           .dims = {{'I', 1024}, {'O', 33}},
           .lengths = {19},
           .plant = {{"x", NAN}}},
          {.name = "wide-infinity",
           .dims = {{'I', 1024}, {'O', 33}},
           .lengths = {19},
           .plant = {{"x", INFINITY}}},
          {.name = "wrong-width",
           .dims = {{'I', 32}, {'O', 16}},
           .lengths = {2},
           .bad_shape = {"w", {16, 31}},
           .error = "w: expected [O, 32], got [16, 31]"},
      };
    },
};

}  // namespace krait
