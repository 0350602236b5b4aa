// The ops that graphs are made of, and the kernels of this build that run them.
#pragma once

#include <string>
#include <vector>

#include <krait/export.h>

namespace krait {

/// An input or output of an op.
struct OpOperand {
  std::string name;
  /// Its shape in dimension letters: "T D", "C D K-1"; alternatives stand apart by '|', "*" is any
  /// shape. T tokens, S sequences, C slots, D channels, N state, G groups, K taps, V vocabulary.
  std::string dims;
  /// What it may hold: "activation" (any floating-point type), "wide" (f32), "weight" (any storage
  /// type), "state" (f32, updated in place) or "index" (i32).
  std::string role;
  /// Whether a call may leave it out; an optional output exists only with `only_with`.
  bool optional = false;
  std::string only_with;  ///< of an output: the optional input that it comes with; else empty
};

/// A number, a flag (0 or 1), or one of several names.
struct OpAttribute {
  std::string name;
  double value = 0;                  ///< the default; of choices: a position, −1: not chosen
  std::vector<std::string> choices;  ///< empty for numbers and flags
};

/// What a backend has for an op.
struct OpKernels {
  std::string backend;
  std::vector<std::string> kernels;  ///< the first that supports a call runs it
};

struct OpInfo {
  std::string name;     ///< what GraphBuilder::op() takes
  std::string summary;  ///< one line
  bool view = false;    ///< only looks at memory differently; needs no kernel
  std::vector<OpOperand> inputs, outputs;
  std::vector<OpAttribute> attributes;
  std::vector<OpKernels> kernels;  ///< one entry per backend that has a device here
};

/// Every op.
KRAIT_API std::vector<OpInfo> list_ops();

}  // namespace krait
