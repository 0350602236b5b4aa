// What an op is: one definition drives the graph's shape inference, the float64 oracle, the
// conformance cases, the benchmarks and the documentation.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include <krait/status.h>
#include <krait/tensor.h>

namespace krait {

struct Op;
struct Case;

inline constexpr int kMaxInputs = 13;
inline constexpr int kMaxOutputs = 2;
inline constexpr int kMaxAttrs = 6;

/// Which types an operand may have.
enum class Role : std::uint8_t {
  activation,  ///< f32, f16, bf16; f64 on the reference backend
  wide,        ///< f32 (f64 on the reference backend): parameters, residual stream
  weight,      ///< any storage type of a matrix
  state,       ///< f32, updated in place
  index,       ///< i32
};

/// The interval that conformance cases draw an operand's values from.
struct Range {
  double low = -1;
  double high = 1;
};

/// An input. `dims` spells its shape in dimension letters: "T D", "S+1", "C D K-1"; alternatives
/// stand apart by '|'; "*" is any shape, the same at every "*" of the op.
struct Input {
  std::string_view name;
  std::string_view dims;
  Role role = Role::activation;
  bool optional = false;
  Range range = {};
  char below = 0;  ///< of an index: cases draw it from [0, the extent of this letter)
};

/// An output. Its type is that of the input named `like`; of the attribute "dtype" where that is
/// set; or i32 for Role::index. A state names the state input that it aliases.
struct Output {
  std::string_view name;
  std::string_view dims;  ///< as for Input; "@k" is the value of attribute k
  Role role = Role::activation;
  std::string_view like = {};
  std::string_view only_with = {};  ///< absent unless this optional input is there
};

/// An attribute: a number, a flag (0 or 1), or one of `choices` (its position among them; −1 is
/// "not chosen").
struct AttrDef {
  std::string_view name;
  double value = 0;  ///< the default
  std::string_view choices = {};
};

/// The attributes of a call, in the order of the op's definitions.
using Attrs = std::array<double, kMaxAttrs>;

/// Dtype and shape of a value; the shape may be symbolic.
struct Type {
  DType dtype = DType::f32;
  Shape shape;
  friend bool operator==(const Type&, const Type&) = default;
};
std::string to_string(const Type& type);  // "f32[T, 1536]"

/// An op call as backends see it: views and attributes, never a graph.
struct Call {
  const Op* op = nullptr;
  std::array<TensorView, kMaxInputs> inputs{};    ///< a null view where an optional one is absent
  std::array<TensorView, kMaxOutputs> outputs{};  ///< a state's output equals its input
  Attrs attrs{};
  /// Whether every sequence has exactly one token: decoding. Kernels that need it refuse without.
  bool steps = false;
  /// Whether a kernel of a matrix product may round its inputs to bfloat16, or to int8 in blocks,
  /// where that is faster (krait::Activations::native).
  bool native = false;

  /// `const auto [x, w, bias] = call.in<3>();`: the first `count` inputs by reference, in the
  /// order of the definition.
  template <std::size_t count>
  auto in() const {
    return tie(inputs, std::make_index_sequence<count>());
  }
  double attr(std::string_view name) const;
  bool flag(std::string_view name) const { return attr(name) != 0; }
  template <class Enum>
  Enum choice(std::string_view name) const {
    return static_cast<Enum>(static_cast<int>(attr(name)));
  }

 private:
  template <std::size_t... i>
  static auto tie(const std::array<TensorView, kMaxInputs>& views, std::index_sequence<i...>) {
    return std::tuple<decltype((void(i), std::declval<const TensorView&>()))...>(views[i]...);
  }
};

/// A dense float64 tensor of the oracle: x(t, d).
struct Tensor64 {
  double* data = nullptr;
  std::array<std::int64_t, kMaxRank> dim{};
  int rank = 0;

  explicit operator bool() const { return data != nullptr; }
  template <class... Index>
  double& operator()(Index... index) const {
    std::int64_t at = 0;
    int axis = 0;
    ((at = at * dim[axis++] + static_cast<std::int64_t>(index)), ...);
    return data[at];
  }
  /// Row `i` of a matrix: for the loop that takes most of the oracle's time.
  const double* row(std::int64_t i) const { return data + i * dim[1]; }
};

/// A call of the oracle: every tensor dense and in float64, indices too.
struct Call64 {
  const Op* op = nullptr;
  std::array<Tensor64, kMaxInputs> inputs{};
  std::array<Tensor64, kMaxOutputs> outputs{};
  Attrs attrs{};

  template <std::size_t count>
  auto in() const {
    return tie(inputs, std::make_index_sequence<count>());
  }
  double attr(std::string_view name) const;
  bool flag(std::string_view name) const { return attr(name) != 0; }

 private:
  template <std::size_t... i>
  static auto tie(const std::array<Tensor64, kMaxInputs>& tensors, std::index_sequence<i...>) {
    return std::tuple<decltype((void(i), std::declval<const Tensor64&>()))...>(tensors[i]...);
  }
};

/// What a call must do at least, whoever runs it.
struct Cost {
  double bytes = 0;    ///< moved to and from memory, every operand once
  double flops = 0;    ///< additions and multiplications
  double special = 0;  ///< exponentials, roots, divisions
};

/// Dimension letters bound while the operands of a call are matched.
class Bindings {
 public:
  const Dim* find(char letter) const;
  void bind(char letter, Dim dim);
  /// The value bound to a letter; 0 where it is symbolic or not bound.
  std::int64_t operator[](char letter) const;

 private:
  std::array<Dim, 26> dims_{};
  std::uint32_t bound_ = 0;
};

struct Op {
  std::string_view name;
  std::string_view summary;  ///< one line, for tables
  std::vector<Input> inputs;
  std::vector<Output> outputs;
  std::vector<AttrDef> attrs = {};

  /// What the dims cannot say, such as "D must be a multiple of G"; may be null. Symbolic extents
  /// read as 0.
  Status (*check)(const Bindings&, const Attrs&) = nullptr;
  /// A view costs nothing: given the view of its first input, the view of its output. Null for ops
  /// that compute.
  Result<TensorView> (*view)(const TensorView&, const Attrs&) = nullptr;
  /// The float64 oracle, in plain loops under its equation. It may read and write `state` tensors
  /// in place.
  void (*reference)(const Call64&) = nullptr;
  /// The roundings on the way to one element of the output, relative to the output's scale, in
  /// units of the roundoff of float32 accumulation. Its derivation stands with the op.
  double (*roundings)(const Call&) = nullptr;
  /// Operations of a call; bytes default to every operand once (Cost.bytes < 0 in what this
  /// returns means "default").
  Cost (*cost)(const Call&) = nullptr;
  /// Real model shapes, odd sizes and calls that must be refused.
  std::vector<Case> (*cases)() = nullptr;
  /// Several ops in one, made by a plan's passes where a device has a kernel for it: a backend need
  /// not have one, since the parts do the same.
  bool fused = false;
};

/// Position of an attribute by name; −1 if there is none.
inline int attr_index(const Op& op, std::string_view name) {
  for (std::size_t i = 0; i < op.attrs.size(); ++i) {
    if (op.attrs[i].name == name) return static_cast<int>(i);
  }
  return -1;
}

inline double Call::attr(std::string_view name) const {
  const int at = attr_index(*op, name);
  return at < 0 ? 0 : attrs[static_cast<std::size_t>(at)];
}

inline double Call64::attr(std::string_view name) const {
  const int at = attr_index(*op, name);
  return at < 0 ? 0 : attrs[static_cast<std::size_t>(at)];
}

#define KRAIT_OP(name) extern const Op name##_op;
#include "ops/ops.inc"
#undef KRAIT_OP

/// Every op, in the order of ops.inc.
std::span<const Op* const> all_ops();
/// Null if there is no such op.
const Op* find_op(std::string_view name);

Attrs default_attrs(const Op& op);
/// Sets an attribute by name; refuses unknown names and values outside the choices.
Status set_attr(const Op& op, Attrs& attrs, std::string_view name, double value);
Status set_attr(const Op& op, Attrs& attrs, std::string_view name, std::string_view choice);
/// "dt_softplus = 1", "discretisation = zoh": what differs from the defaults, comma-separated.
std::string to_string(const Op& op, const Attrs& attrs);

/// Types of the outputs, or why the call is wrong: `[op] name: expected [..], got [..]`. `inputs`
/// holds one entry per definition, null where an optional one is absent; so does the result for
/// outputs (nullopt where `only_with` is absent).
struct InferredTypes {
  std::array<Type, kMaxOutputs> types{};
  std::array<bool, kMaxOutputs> present{};
};
Result<InferredTypes> infer(const Op& op, std::span<const Type* const> inputs, const Attrs& attrs);
/// The same rule for a concrete call, whose outputs are checked as well; strides too.
Status check(const Call& call);

/// Position of an input or output by name; −1 if there is none.
int input_index(const Op& op, std::string_view name);
int output_index(const Op& op, std::string_view name);

/// The cost with bytes filled in.
Cost cost(const Call& call);

}  // namespace krait
