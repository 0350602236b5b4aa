#include "ops/case.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "runtime/core/blocks.h"
#include "runtime/core/convert.h"
#include "runtime/core/try.h"

namespace krait {
namespace {

constexpr std::int64_t kGuard = 64;       // bytes of sentinels on either side
constexpr std::byte kSentinel{0xA5};      // as float32: −2.9e-16, as bytes: easy to see
constexpr std::int64_t kRowGap = 5;       // elements between the rows of a strided tensor
constexpr std::int64_t kUnusedSlots = 2;  // a state has more slots than the call has sequences

/// SplitMix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014.
class Random {
 public:
  explicit Random(std::string_view seed) {
    for (const char c : seed) state_ = (state_ ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  }
  std::uint64_t next() {
    std::uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  double uniform(Range range) {
    return range.low + (range.high - range.low) * static_cast<double>(next() >> 11) * 0x1p-53;
  }
  std::int64_t below(std::int64_t bound) {
    return bound > 0 ? static_cast<std::int64_t>(next() % static_cast<std::uint64_t>(bound)) : 0;
  }

 private:
  std::uint64_t state_ = 0xcbf29ce484222325u;
};

template <class Value>
const Value* lookup(const std::vector<std::pair<std::string_view, Value>>& list,
                    std::string_view key) {
  for (const auto& [name, value] : list) {
    if (name == key) return &value;
  }
  return nullptr;
}

std::vector<std::int64_t> shape_in_case(const Input& input, const Case& c) {
  std::string_view dims = input.dims;
  const int* alternative = lookup(c.alternatives, input.name);
  for (int skip = alternative ? *alternative : 0; skip > 0; --skip) {
    dims.remove_prefix(dims.find('|') + 1);
  }
  dims = dims.substr(0, dims.find('|'));
  if (dims == "*") dims = "T D";
  std::vector<std::int64_t> shape;
  for (std::size_t at = 0; at < dims.size();) {
    const std::size_t end = std::min(dims.find(' ', at), dims.size());
    const std::string_view word = dims.substr(at, end - at);
    if (!word.empty()) {
      const std::int64_t plus = word.size() > 1 ? (word[1] == '-' ? -1 : 1) * (word[2] - '0') : 0;
      shape.push_back(extent(c, word[0]) + plus);
    }
    at = end + 1;
  }
  return shape;
}

std::unique_ptr<Region> allocate(DType dtype, const Shape& shape, Layout layout) {
  auto region = std::make_unique<Region>();
  TensorView view = dense_view(nullptr, dtype, shape);
  std::int64_t span = view.elements();
  if (layout == Layout::strided && view.rank > 1) {
    const std::int64_t row = view.stride[0];
    view.stride[0] = row + kRowGap;
    span = view.dim[0] * view.stride[0];
  } else if (layout == Layout::time_invariant && view.rank > 1) {
    span = view.stride[0];
    view.stride[0] = 0;
  }
  view.offset = kGuard;
  if (layout == Layout::misaligned) view.offset += info(dtype).block_bytes;
  region->bytes.assign(static_cast<std::size_t>(view.offset + bytes_of(dtype, span) + kGuard),
                       kSentinel);
  view.memory = region->bytes.data();
  region->view = view;
  return region;
}

/// Writes dense float64 values into a view of any type and strides.
void store(const std::vector<double>& values, const TensorView& view) {
  const TensorView dense =
      dense_view(const_cast<double*>(values.data()), DType::f64, shape_of(view));
  (void)convert(dense, view);  // extents are equal by construction
}

std::vector<double> load(const TensorView& view) {
  std::vector<double> values(static_cast<std::size_t>(std::max<std::int64_t>(view.elements(), 1)));
  (void)convert(view, dense_view(values.data(), DType::f64, shape_of(view)));
  return values;
}

/// starts, slot_in or slot_out.
std::vector<double> sequence_indices(std::string_view operand, const Case& c) {
  const auto sequences = static_cast<std::int64_t>(c.lengths.size());
  std::vector<double> values;
  if (operand == "starts") {
    double at = 0;
    values.push_back(0);
    for (const std::int64_t length : c.lengths) values.push_back(at += static_cast<double>(length));
    return values;
  }
  const bool in = operand == "slot_in";
  for (std::int64_t s = 0; s < sequences; ++s) {
    std::int64_t slot = s;
    switch (c.slots) {
      case Slots::in_place:
        break;
      case Slots::shuffled:
        slot = sequences + kUnusedSlots - 1 - s - (s > 0 ? 1 : 0);
        break;
      case Slots::fork:
        slot = in ? 0 : s + 1;
        break;
      case Slots::fresh:
        slot = in ? -1 : s;
        break;
      case Slots::discard:
        slot = in ? s : -1;
        break;
      case Slots::mixed:
        if (s % 4 == 1) slot = in ? -1 : s;
        if (s % 4 == 2) slot = in ? sequences : s;
        if (s % 4 == 3) slot = in ? sequences : -1;
        break;
    }
    values.push_back(static_cast<double>(slot));
  }
  return values;
}

std::vector<double> make_values(const Op& op, const Input& input, const Case& c,
                                const TensorView& view) {
  if (input.role == Role::index &&
      (input.name == "starts" || input.name == "slot_in" || input.name == "slot_out")) {
    return sequence_indices(input.name, c);
  }
  Random random(cat(op.name, "/", c.name, "/", input.name));
  std::vector<double> values(static_cast<std::size_t>(view.elements()));
  if (input.role == Role::index) {
    for (double& value : values) value = static_cast<double>(random.below(extent(c, input.below)));
    return values;
  }
  const Range* range = lookup(c.ranges, input.name);
  for (double& value : values) value = random.uniform(range ? *range : input.range);
  for (const auto& [name, value] : c.plant) {
    if (name == input.name && !values.empty()) {
      values[static_cast<std::size_t>(random.below(view.elements()))] = value;
    }
  }
  return values;
}

/// Random blocks, in which every code and every scale of a group occurs. `widest` is about the
/// magnitude of the largest value.
template <class Block, class SetScales>
void fill_blocks(const TensorView& view, Random& random, double widest, SetScales set_scales) {
  auto* bytes = view.as<std::byte>();
  const std::int64_t blocks = view.elements() / Block::kElements;
  for (std::int64_t b = 0; b < blocks; ++b, bytes += sizeof(Block)) {
    Block block;
    std::uint64_t words[sizeof(Block) / 8 + 1];
    for (std::uint64_t& word : words) word = random.next();
    std::memcpy(&block, words, sizeof block);
    set_scales(block, random.uniform({widest / 2, widest}));
    std::memcpy(bytes, &block, sizeof block);
  }
}

void fill_blocks(const TensorView& view, Random& random, double widest) {
  const auto half = [](double x) { return to_f16(static_cast<float>(x)); };
  // d q, centred; or d q + m from −s to s; or d s q − dmin m with s and m up to 63.
  const auto centred = [&](double codes) {
    return [half, codes](auto& block, double s) { block.d = half(s / codes); };
  };
  const auto range = [&](double codes) {
    return [half, codes](auto& block, double s) {
      block.d = half(2 * s / codes);
      block.m = half(-s);
    };
  };
  const auto grouped = [&](double codes) {
    return [half, codes](auto& block, double s) {
      block.d = half(2 * s / codes / 63);
      block.dmin = half(s / 63);
    };
  };
  switch (view.dtype) {
    case DType::q8_0:
      return fill_blocks<BlockQ8_0>(view, random, widest, centred(128));
    case DType::q4_0:
      return fill_blocks<BlockQ4_0>(view, random, widest, centred(8));
    case DType::q4_1:
      return fill_blocks<BlockQ4_1>(view, random, widest, range(15));
    case DType::q5_0:
      return fill_blocks<BlockQ5_0>(view, random, widest, centred(16));
    case DType::q5_1:
      return fill_blocks<BlockQ5_1>(view, random, widest, range(31));
    case DType::q4_k:
      return fill_blocks<BlockQ4_K>(view, random, widest, grouped(15));
    case DType::q5_k:
      return fill_blocks<BlockQ5_K>(view, random, widest, grouped(31));
    case DType::q6_k:
      return fill_blocks<BlockQ6_K>(view, random, widest, centred(128 * 32));
    default:
      return;
  }
}

/// Whether every byte outside the tensor's rows is a sentinel.
Status check_region(const Region& region, std::string_view op, std::string_view operand) {
  const TensorView& view = region.view;
  const std::int64_t rows = view.rank > 1 ? view.dim[0] : 1;
  const std::int64_t row_bytes =
      bytes_of(view.dtype, view.elements() / std::max<std::int64_t>(rows, 1));
  std::int64_t at = 0;
  const auto gap_until = [&](std::int64_t end) -> Status {
    const auto first = region.bytes.begin() + at, last = region.bytes.begin() + std::max(at, end);
    const auto wrong = std::find_if(first, last, [](std::byte b) { return b != kSentinel; });
    if (wrong == last) return {};
    return Status(Code::internal, cat("[", op, "] wrote outside ", operand, ", at byte ",
                                      wrong - region.bytes.begin() - view.offset));
  };
  for (std::int64_t r = 0; r < rows; ++r) {
    const std::int64_t begin =
        view.offset + (view.rank > 1 ? bytes_of(view.dtype, r * view.stride[0]) : 0);
    KRAIT_TRY(gap_until(begin));
    at = begin + row_bytes;
  }
  return gap_until(static_cast<std::int64_t>(region.bytes.size()));
}

}  // namespace

std::int64_t extent(const Case& c, char letter) {
  const auto sequences = static_cast<std::int64_t>(c.lengths.size());
  if (letter == 'S') return sequences;
  if (letter == 'C') return sequences + kUnusedSlots;
  for (const auto& [name, value] : c.dims) {
    if (name == letter) return value;
  }
  std::int64_t tokens = 0;
  for (const std::int64_t length : c.lengths) tokens += length;
  return letter == 'T' ? tokens : 0;
}

bool has_weight(const Op& op) {
  return std::any_of(op.inputs.begin(), op.inputs.end(),
                     [](const Input& input) { return input.role == Role::weight; });
}

bool can_exist(const Op& op, const Case& c, const CaseTypes& types) {
  return std::all_of(op.inputs.begin(), op.inputs.end(), [&](const Input& input) {
    if (input.role != Role::weight) return true;
    const bool bad = c.bad_shape.first == input.name;
    const std::vector<std::int64_t> shape = bad ? c.bad_shape.second : shape_in_case(input, c);
    return shape.back() % info(types.weight).block == 0;
  });
}

std::string to_string(const Op& op, const CaseTypes& types) {
  std::string text(name(types.activation));
  if (has_weight(op)) text += "/" + std::string(name(types.weight));
  if (types.native) text += " native";
  return text;
}

Result<HostCall> HostCall::make(const Op& op, const Case& c, const CaseTypes& types) {
  HostCall host;
  host.call.op = &op;
  host.call.native = types.native;
  host.call.attrs = default_attrs(op);
  for (const auto& [name, value] : c.attrs) {
    KRAIT_TRY(set_attr(op, host.call.attrs, name, value));
  }
  for (std::size_t i = 0; i < op.inputs.size(); ++i) {
    const Input& input = op.inputs[i];
    host.inputs.push_back(nullptr);
    if (std::find(c.omit.begin(), c.omit.end(), input.name) != c.omit.end()) continue;
    const std::vector<std::int64_t> dims =
        c.bad_shape.first == input.name ? c.bad_shape.second : shape_in_case(input, c);
    DType dtype = DType::f32;
    if (input.role == Role::activation) dtype = types.activation;
    if (input.role == Role::weight) dtype = types.weight;
    if (input.role == Role::index) dtype = DType::i32;
    const bool laid_out = input.role == Role::activation || input.role == Role::wide;
    Layout layout = laid_out ? c.layout : Layout::dense;
    if (layout == Layout::time_invariant && input.name != "B" && input.name != "C") {
      layout = Layout::dense;
    }
    if (input.role == Role::wide && layout == Layout::strided && input.dims.substr(0, 2) != "T ") {
      layout = Layout::dense;  // parameters are dense
    }
    host.inputs.back() = allocate(dtype, Shape(std::span<const std::int64_t>(dims)), layout);
    TensorView target = host.inputs.back()->view;
    host.call.inputs[i] = target;
    if (layout == Layout::time_invariant) target.dim[0] = std::min<std::int64_t>(target.dim[0], 1);
    if (is_block(dtype)) {
      Random random(cat(op.name, "/", c.name, "/", input.name));
      fill_blocks(target, random, std::max(-input.range.low, input.range.high));
      continue;
    }
    store(make_values(op, input, c, target), target);
  }
  std::array<Type, kMaxInputs> input_types;
  std::array<const Type*, kMaxInputs> pointers{};
  for (std::size_t i = 0; i < op.inputs.size(); ++i) {
    if (!host.inputs[i]) continue;
    input_types[i] = {host.call.inputs[i].dtype, shape_of(host.call.inputs[i])};
    pointers[i] = &input_types[i];
  }
  KRAIT_ASSIGN(const InferredTypes inferred, infer(op, pointers, host.call.attrs));
  for (std::size_t i = 0; i < op.outputs.size(); ++i) {
    host.outputs.push_back(nullptr);
    if (!inferred.present[i]) continue;
    if (op.outputs[i].role == Role::state) {
      host.call.outputs[i] =
          host.call.inputs[static_cast<std::size_t>(input_index(op, op.outputs[i].like))];
      continue;
    }
    const Layout layout = c.layout == Layout::time_invariant ? Layout::dense : c.layout;
    host.outputs.back() = allocate(inferred.types[i].dtype, inferred.types[i].shape, layout);
    host.call.outputs[i] = host.outputs.back()->view;
  }
  return host;
}

namespace {

/// The oracle's operands for `call`, each converted to dense float64.
struct Operands64 {
  Call64 call;
  std::vector<std::vector<double>> memory;
};

Tensor64 tensor64(const TensorView& view, double* data) {
  Tensor64 tensor;
  tensor.data = data;
  tensor.dim = view.dim;
  tensor.rank = view.rank;
  return tensor;
}

Operands64 operands64(const Call& call) {
  Operands64 result;
  result.call.op = call.op;
  result.call.attrs = call.attrs;
  result.memory.reserve(kMaxInputs + kMaxOutputs);
  for (std::size_t i = 0; i < call.op->inputs.size(); ++i) {
    const TensorView& view = call.inputs[i];
    if (!view) continue;
    if (view.dtype == DType::f64 && is_dense(view) && call.op->inputs[i].role != Role::state) {
      result.call.inputs[i] = tensor64(view, view.as<double>());
      continue;
    }
    result.memory.push_back(load(view));
    result.call.inputs[i] = tensor64(view, result.memory.back().data());
  }
  for (std::size_t i = 0; i < call.op->outputs.size(); ++i) {
    const TensorView& view = call.outputs[i];
    if (!view) continue;
    if (call.op->outputs[i].role == Role::state) {
      result.call.outputs[i] =
          result.call
              .inputs[static_cast<std::size_t>(input_index(*call.op, call.op->outputs[i].like))];
      continue;
    }
    result.memory.emplace_back(
        static_cast<std::size_t>(std::max<std::int64_t>(view.elements(), 1)));
    result.call.outputs[i] = tensor64(view, result.memory.back().data());
  }
  return result;
}

std::vector<double> dense_values(const Tensor64& tensor) {
  std::int64_t count = 1;
  for (int axis = 0; axis < tensor.rank; ++axis)
    count *= tensor.dim[static_cast<std::size_t>(axis)];
  return {tensor.data, tensor.data + count};
}

}  // namespace

Status run_reference(const Call& call) {
  Operands64 operands = operands64(call);
  call.op->reference(operands.call);
  for (std::size_t i = 0; i < call.op->outputs.size(); ++i) {
    if (!call.outputs[i]) continue;
    const Tensor64& tensor = operands.call.outputs[i];
    KRAIT_TRY(
        convert(dense_view(tensor.data, DType::f64, shape_of(call.outputs[i])), call.outputs[i]));
  }
  return {};
}

std::vector<std::vector<double>> HostCall::reference() const {
  Operands64 operands = operands64(call);
  call.op->reference(operands.call);
  std::vector<std::vector<double>> result;
  for (const Tensor64& tensor : operands.call.outputs) {
    result.push_back(tensor ? dense_values(tensor) : std::vector<double>());
  }
  return result;
}

std::vector<double> HostCall::output(int i) const {
  const TensorView& view = call.outputs[static_cast<std::size_t>(i)];
  std::vector<double> values = load(view);
  values.resize(static_cast<std::size_t>(view.elements()));
  return values;
}

Status HostCall::check_sentinels() const {
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    if (inputs[i]) KRAIT_TRY(check_region(*inputs[i], call.op->name, call.op->inputs[i].name));
  }
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    if (outputs[i]) KRAIT_TRY(check_region(*outputs[i], call.op->name, call.op->outputs[i].name));
  }
  return {};
}

double relative_error(const std::vector<double>& got, const std::vector<double>& want) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  if (got.size() != want.size()) return kInfinity;
  double squares = 0;
  std::size_t finite = 0;
  for (const double value : want) {
    if (!std::isfinite(value)) continue;
    squares += value * value;
    ++finite;
  }
  const double rms = finite ? std::sqrt(squares / static_cast<double>(finite)) : 0;
  double worst = 0;
  for (std::size_t i = 0; i < want.size(); ++i) {
    if (!std::isfinite(want[i]) || !std::isfinite(got[i])) {
      const bool same = std::isnan(want[i]) ? std::isnan(got[i]) : want[i] == got[i];
      if (!same) return kInfinity;
      continue;
    }
    const double difference = std::fabs(got[i] - want[i]);
    if (difference > 0) worst = std::max(worst, difference / std::max(std::fabs(want[i]), rms));
  }
  return worst;
}

double tolerance(const Call& call, int i) {
  const Output& output = call.op->outputs[static_cast<std::size_t>(i)];
  if (output.role == Role::index) return 0;
  const double accumulated = (call.op->roundings ? call.op->roundings(call) : 0) * 0x1p-24;
  switch (call.outputs[static_cast<std::size_t>(i)].dtype) {
    case DType::f16:
      return accumulated + 0x1p-11;
    case DType::bf16:
      return accumulated + 0x1p-8;
    default:
      return accumulated + 0x1p-24;
  }
}

}  // namespace krait
