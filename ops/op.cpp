#include "ops/op.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "runtime/core/try.h"

namespace krait {

namespace {

constexpr const Op* kOps[] = {
#define KRAIT_OP(name) &name##_op,
#include "ops/ops.inc"
#undef KRAIT_OP
};

/// Splits off the first word of `text`, at `separator`.
std::string_view next_word(std::string_view& text, char separator) {
  while (!text.empty() && text.front() == separator) text.remove_prefix(1);
  const std::size_t end = std::min(text.find(separator), text.size());
  const std::string_view word = text.substr(0, end);
  text.remove_prefix(end);
  return word;
}

std::optional<std::string_view> choice_name(std::string_view choices, int index) {
  std::string_view word;
  for (int i = 0; i <= index; ++i) {
    word = next_word(choices, ' ');
    if (word.empty()) return std::nullopt;
  }
  return word;
}

/// "D", "K-1", "4", "@k" as a letter (0 if none) plus a number.
Dim parse_dim(std::string_view word, const Op& op, const Attrs& attrs) {
  if (word.front() == '@') {
    return static_cast<std::int64_t>(
        attrs[static_cast<std::size_t>(attr_index(op, word.substr(1)))]);
  }
  std::int64_t number = 0;
  Dim dim;
  std::size_t at = 0;
  if (word[0] >= 'A' && word[0] <= 'Z') dim.symbol = word[at++];
  const bool minus = at < word.size() && word[at] == '-';
  if (dim.symbol && at < word.size()) ++at;
  for (; at < word.size(); ++at) number = number * 10 + (word[at] - '0');
  dim.value = minus ? -number : number;
  return dim;
}

/// What the letter stands for so far, or the letter itself.
Dim resolve(const Dim& pattern, const Bindings& bindings) {
  if (!pattern.symbolic()) return pattern;
  const Dim* bound = bindings.find(pattern.symbol);
  if (!bound) return pattern;
  return bound->symbolic() ? Dim(bound->symbol, bound->value + pattern.value)
                           : Dim(bound->value + pattern.value);
}

struct Pattern {
  std::array<Dim, kMaxRank> dims;
  int rank = 0;
};

Pattern parse_pattern(std::string_view text, const Op& op, const Attrs& attrs) {
  Pattern pattern;
  while (true) {
    const std::string_view word = next_word(text, ' ');
    if (word.empty()) return pattern;
    pattern.dims[static_cast<std::size_t>(pattern.rank++)] = parse_dim(word, op, attrs);
  }
}

std::string to_string(const Pattern& pattern, const Bindings& bindings) {
  Shape shape(std::span<const Dim>(pattern.dims.data(), static_cast<std::size_t>(pattern.rank)));
  for (int axis = 0; axis < shape.rank(); ++axis) shape[axis] = resolve(shape[axis], bindings);
  return krait::to_string(shape);
}

/// Binds the pattern's letters to the shape's extents; false if they contradict.
bool match(const Pattern& pattern, const Shape& shape, Bindings& bindings) {
  if (pattern.rank != shape.rank()) return false;
  Bindings trial = bindings;
  for (int axis = 0; axis < pattern.rank; ++axis) {
    const Dim& want = pattern.dims[static_cast<std::size_t>(axis)];
    const Dim& have = shape[axis];
    if (want.symbolic() && !trial.find(want.symbol)) {
      trial.bind(want.symbol, Dim(have.symbol, have.value - want.value));
    }
    if (resolve(want, trial) != have) return false;
  }
  bindings = trial;
  return true;
}

bool allowed(Role role, DType type) {
  switch (role) {
    case Role::activation:
      return info(type).floating;
    case Role::weight:
      return info(type).floating || is_block(type);
    case Role::wide:
      return type == DType::f32 || type == DType::f64;
    case Role::state:
      return type == DType::f32;
    case Role::index:
      return type == DType::i32;
  }
  return false;
}

std::string_view allowed_text(Role role) {
  switch (role) {
    case Role::activation:
      return "a floating-point type";
    case Role::weight:
      return "a floating-point or block-quantised type";
    case Role::wide:
    case Role::state:
      return "f32";
    case Role::index:
      return "i32";
  }
  return "";
}

/// Matches every input, binding letters and the shape of "*".
Status match_inputs(const Op& op, std::span<const Type* const> inputs, const Attrs& attrs,
                    Bindings& bindings, const Shape*& any) {
  for (std::size_t i = 0; i < op.inputs.size(); ++i) {
    const Input& want = op.inputs[i];
    const Type* have = i < inputs.size() ? inputs[i] : nullptr;
    if (!have) {
      if (want.optional) continue;
      return invalid("[", op.name, "] ", want.name, ": missing");
    }
    if (!allowed(want.role, have->dtype)) {
      return invalid("[", op.name, "] ", want.name, ": expected ", allowed_text(want.role),
                     ", got ", name(have->dtype));
    }
    if (have->shape.rank() < 1) {
      return invalid("[", op.name, "] ", want.name, ": expected 1 to ", kMaxRank,
                     " dimensions, got ", krait::to_string(have->shape));
    }
    if (const Dim row = have->shape[have->shape.rank() - 1];
        is_block(have->dtype) && (row.symbolic() || row.value % info(have->dtype).block != 0)) {
      return invalid("[", op.name, "] ", want.name, ": expected rows of whole ", name(have->dtype),
                     " blocks, ", info(have->dtype).block, " elements each, got ",
                     krait::to_string(have->shape));
    }
    std::string expected;
    bool matched = false;
    for (std::string_view rest = want.dims; !rest.empty() && !matched;) {
      const std::string_view alternative = next_word(rest, '|');
      if (alternative == "*") {
        matched = !any || *any == have->shape;
        if (!any) any = &have->shape;
        if (!matched) expected += (expected.empty() ? "" : " or ") + krait::to_string(*any);
        continue;
      }
      const Pattern pattern = parse_pattern(alternative, op, attrs);
      matched = match(pattern, have->shape, bindings);
      if (!matched) expected += (expected.empty() ? "" : " or ") + to_string(pattern, bindings);
    }
    if (!matched) {
      return invalid("[", op.name, "] ", want.name, ": expected ", expected, ", got ",
                     krait::to_string(have->shape));
    }
  }
  for (std::size_t i = op.inputs.size(); i < inputs.size(); ++i) {
    if (inputs[i]) {
      return invalid("[", op.name, "] takes ", op.inputs.size(), " inputs, got ", inputs.size());
    }
  }
  return {};
}

/// The shape a view op yields: its view function is asked with two values for the symbolic axes,
/// which views leave alone.
Result<Shape> view_shape(const Op& op, const Shape& shape, const Attrs& attrs) {
  Shape result;
  for (const std::int64_t probe : {2, 3}) {
    Shape concrete = shape;
    for (int axis = 0; axis < shape.rank(); ++axis) {
      if (shape[axis].symbolic()) concrete[axis] = Dim(probe);
    }
    KRAIT_ASSIGN(const TensorView view, op.view(dense_view(nullptr, DType::f32, concrete), attrs));
    result = shape_of(view);
    // kMaxRank: gcc 14 does not see that no shape has more axes, and warns.
    for (int axis = 0; axis < std::min(shape.rank(), kMaxRank); ++axis) {
      if (!shape[axis].symbolic()) continue;
      if (axis >= result.rank() || result[axis] != Dim(probe)) {
        return invalid("[", op.name, "] x: axis ", axis, " of ", to_string(shape),
                       " is symbolic; views change only axes of known extent");
      }
      result[axis] = shape[axis];
    }
  }
  return result;
}

}  // namespace

const Dim* Bindings::find(char letter) const {
  const int at = letter - 'A';
  return bound_ >> at & 1u ? &dims_[static_cast<std::size_t>(at)] : nullptr;
}

void Bindings::bind(char letter, Dim dim) {
  dims_[static_cast<std::size_t>(letter - 'A')] = dim;
  bound_ |= 1u << (letter - 'A');
}

std::int64_t Bindings::operator[](char letter) const {
  const Dim* dim = find(letter);
  return dim && !dim->symbolic() ? dim->value : 0;
}

std::string to_string(const Type& type) {
  return std::string(name(type.dtype)) + to_string(type.shape);
}

std::span<const Op* const> all_ops() {
  return kOps;
}

const Op* find_op(std::string_view name) {
  for (const Op* op : kOps) {
    if (op->name == name) return op;
  }
  return nullptr;
}

Attrs default_attrs(const Op& op) {
  Attrs attrs{};
  for (std::size_t i = 0; i < op.attrs.size(); ++i) attrs[i] = op.attrs[i].value;
  return attrs;
}

Status set_attr(const Op& op, Attrs& attrs, std::string_view name, double value) {
  const int at = attr_index(op, name);
  if (at < 0) return invalid("[", op.name, "] has no attribute ", name);
  const AttrDef& def = op.attrs[static_cast<std::size_t>(at)];
  // Beyond 2^53 a double is no exact integer any more, and casts to int64 would overflow.
  if (!(std::fabs(value) <= 0x1p53)) {
    return invalid("[", op.name, "] ", name, ": expected a number from -2^53 to 2^53, got ", value);
  }
  if (!def.choices.empty() && value != def.value &&
      (!(value >= 0 && value < 64) || value != std::floor(value) ||
       !choice_name(def.choices, static_cast<int>(value)))) {
    return invalid("[", op.name, "] ", name, ": expected one of ", def.choices, ", got number ",
                   value);
  }
  attrs[static_cast<std::size_t>(at)] = value;
  return {};
}

Status set_attr(const Op& op, Attrs& attrs, std::string_view name, std::string_view choice) {
  const int at = attr_index(op, name);
  if (at < 0) return invalid("[", op.name, "] has no attribute ", name);
  const std::string_view choices = op.attrs[static_cast<std::size_t>(at)].choices;
  std::string_view rest = choices;
  for (int index = 0;; ++index) {
    const std::string_view word = next_word(rest, ' ');
    if (word.empty()) break;
    if (word == choice) {
      attrs[static_cast<std::size_t>(at)] = index;
      return {};
    }
  }
  return invalid("[", op.name, "] ", name, ": expected ", choices.empty() ? "a number" : "one of ",
                 choices, ", got ", choice);
}

std::string to_string(const Op& op, const Attrs& attrs) {
  std::string text;
  for (std::size_t i = 0; i < op.attrs.size(); ++i) {
    const AttrDef& def = op.attrs[i];
    if (attrs[i] == def.value) continue;
    if (!text.empty()) text += ", ";
    text += std::string(def.name) + " = ";
    if (def.choices.empty()) {
      std::ostringstream number;
      number.precision(17);
      number << attrs[i];
      text += number.str();
    } else {
      text += choice_name(def.choices, static_cast<int>(attrs[i])).value_or("?");
    }
  }
  return text;
}

Result<InferredTypes> infer(const Op& op, std::span<const Type* const> inputs, const Attrs& attrs) {
  Bindings bindings;
  const Shape* any = nullptr;
  KRAIT_TRY(match_inputs(op, inputs, attrs, bindings, any));
  if (op.check) {
    if (Status status = op.check(bindings, attrs); !status.ok()) {
      return Status(status.code(), cat("[", op.name, "] ", status.message()));
    }
  }
  InferredTypes result;
  for (std::size_t i = 0; i < op.outputs.size(); ++i) {
    const Output& output = op.outputs[i];
    if (!output.only_with.empty() &&
        !inputs[static_cast<std::size_t>(input_index(op, output.only_with))]) {
      continue;
    }
    result.present[i] = true;
    Type& type = result.types[i];
    if (output.role == Role::index) {
      type.dtype = DType::i32;
    } else if (!output.like.empty()) {
      type.dtype = inputs[static_cast<std::size_t>(input_index(op, output.like))]->dtype;
    }
    if (const int at = attr_index(op, "dtype");
        at >= 0 && output.role == Role::activation && attrs[static_cast<std::size_t>(at)] >= 0) {
      type.dtype = static_cast<DType>(static_cast<int>(attrs[static_cast<std::size_t>(at)]));
    }
    if (op.view) {
      KRAIT_ASSIGN(type.shape, view_shape(op, *any, attrs));
      continue;
    }
    if (output.dims == "*") {
      type.shape = *any;
      continue;
    }
    const Pattern pattern = parse_pattern(output.dims, op, attrs);
    type.shape =
        Shape(std::span<const Dim>(pattern.dims.data(), static_cast<std::size_t>(pattern.rank)));
    for (int axis = 0; axis < type.shape.rank(); ++axis) {
      type.shape[axis] = resolve(type.shape[axis], bindings);
    }
  }
  return result;
}

Status check(const Call& call) {
  const Op& op = *call.op;
  std::array<Type, kMaxInputs> types;
  std::array<const Type*, kMaxInputs> inputs{};
  const auto innermost = [&](const TensorView& view, std::string_view name) -> Status {
    const int inner = view.rank - 1;
    if (inner >= 0 && view.dim[inner] > 1 && view.stride[inner] != 1) {
      return invalid("[", op.name, "] ", name, ": expected innermost stride 1, got ",
                     view.stride[inner]);
    }
    for (int axis = 0; axis < inner; ++axis) {
      if (const std::int64_t stride = view.stride[static_cast<std::size_t>(axis)];
          stride % info(view.dtype).block != 0) {
        return invalid("[", op.name, "] ", name, ": expected rows that begin with a ",
                       krait::name(view.dtype), " block, got stride ", stride);
      }
    }
    return {};
  };
  for (std::size_t i = 0; i < kMaxInputs; ++i) {
    if (!call.inputs[i]) continue;
    types[i] = {call.inputs[i].dtype, shape_of(call.inputs[i])};
    inputs[i] = &types[i];
    if (i < op.inputs.size()) KRAIT_TRY(innermost(call.inputs[i], op.inputs[i].name));
  }
  KRAIT_ASSIGN(const InferredTypes inferred, infer(op, inputs, call.attrs));
  for (std::size_t i = 0; i < op.outputs.size(); ++i) {
    const TensorView& view = call.outputs[i];
    if (static_cast<bool>(view) != inferred.present[i]) {
      return invalid("[", op.name, "] ", op.outputs[i].name, ": expected ",
                     inferred.present[i] ? to_string(inferred.types[i]) : "no such output",
                     ", got ", view ? to_string(shape_of(view)) : "none");
    }
    if (!view) continue;
    const Type have{view.dtype, shape_of(view)};
    if (have != inferred.types[i]) {
      return invalid("[", op.name, "] ", op.outputs[i].name, ": expected ",
                     to_string(inferred.types[i]), ", got ", to_string(have));
    }
    KRAIT_TRY(innermost(view, op.outputs[i].name));
  }
  return {};
}

int input_index(const Op& op, std::string_view name) {
  for (std::size_t i = 0; i < op.inputs.size(); ++i) {
    if (op.inputs[i].name == name) return static_cast<int>(i);
  }
  return -1;
}

int output_index(const Op& op, std::string_view name) {
  for (std::size_t i = 0; i < op.outputs.size(); ++i) {
    if (op.outputs[i].name == name) return static_cast<int>(i);
  }
  return -1;
}

Cost cost(const Call& call) {
  Cost result = call.op->cost ? call.op->cost(call) : Cost{-1, 0, 0};
  if (result.bytes >= 0) return result;
  // Every operand once; of a state, the slots of the call's sequences, read and written.
  const int starts = input_index(*call.op, "starts");
  const double sequences =
      starts < 0 ? 0
                 : static_cast<double>(call.inputs[static_cast<std::size_t>(starts)].dim[0] - 1);
  const auto bytes = [](const TensorView& view) {
    return static_cast<double>(bytes_of(view.dtype, view.elements()));
  };
  result.bytes = 0;
  for (std::size_t i = 0; i < call.op->inputs.size(); ++i) {
    const TensorView& view = call.inputs[i];
    if (!view) continue;
    const bool state = call.op->inputs[i].role == Role::state;
    result.bytes +=
        state ? 2 * sequences * bytes(view) / static_cast<double>(view.dim[0]) : bytes(view);
  }
  for (std::size_t i = 0; i < call.op->outputs.size(); ++i) {
    if (call.outputs[i] && call.op->outputs[i].role != Role::state)
      result.bytes += bytes(call.outputs[i]);
  }
  return result;
}

}  // namespace krait
