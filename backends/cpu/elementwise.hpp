// Elementwise kernels on contiguous elements.
#pragma once

#include "backends/cpu/math.hpp"

namespace krait::cpu::KRAIT_ISA {

struct Neg {
  KRAIT_INLINE Batch operator()(Batch x) const { return -x; }
};
struct Exp {
  KRAIT_INLINE Batch operator()(Batch x) const { return exp(x); }
};
struct Silu {
  KRAIT_INLINE Batch operator()(Batch x) const { return silu(x); }
};
struct Softplus {
  KRAIT_INLINE Batch operator()(Batch x) const { return softplus(x); }
};
struct Add {
  KRAIT_INLINE Batch operator()(Batch x, Batch y) const { return x + y; }
};
struct Mul {
  KRAIT_INLINE Batch operator()(Batch x, Batch y) const { return x * y; }
};

template <class Function>
inline void map(const float* x, float* y, std::int64_t count) {
  std::int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) store(y + i, Function()(load(x + i)));
  if (i < count) store_part(y + i, Function()(load_part(x + i, count - i)), count - i);
}

inline void unary(Unary op, const float* x, float* y, std::int64_t count) {
  switch (op) {
    case Unary::neg:
      return map<Neg>(x, y, count);
    case Unary::exp:
      return map<Exp>(x, y, count);
    case Unary::silu:
      return map<Silu>(x, y, count);
    case Unary::softplus:
      return map<Softplus>(x, y, count);
  }
}

template <class Function>
inline void combine(const float* x, const float* y, float* z, std::int64_t count) {
  std::int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) store(z + i, Function()(load(x + i), load(y + i)));
  if (i < count) {
    const std::int64_t left = count - i;
    store_part(z + i, Function()(load_part(x + i, left), load_part(y + i, left)), left);
  }
}

inline void binary(Binary op, const float* x, const float* y, float* z, std::int64_t count) {
  op == Binary::add ? combine<Add>(x, y, z, count) : combine<Mul>(x, y, z, count);
}

template <class From, class To>
inline void convert(const void* from, void* to, std::int64_t count) {
  const From* x = static_cast<const From*>(from);
  To* y = static_cast<To*>(to);
  std::int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) store(y + i, load(x + i));
  if (i == count) return;
  // What is left goes through buffers of one vector.
  From in[kLanes] = {};
  To out[kLanes];
  for (std::int64_t j = i; j < count; ++j) in[j - i] = x[j];
  store(out, load(in));
  for (std::int64_t j = i; j < count; ++j) y[j] = out[j - i];
}

inline void cast(DType from, const void* x, DType to, void* y, std::int64_t count) {
  if (from == DType::f16) return convert<f16, float>(x, y, count);
  if (from == DType::bf16) return convert<bf16, float>(x, y, count);
  if (to == DType::f16) return convert<float, f16>(x, y, count);
  if (to == DType::bf16) return convert<float, bf16>(x, y, count);
  convert<float, float>(x, y, count);
}

}  // namespace krait::cpu::KRAIT_ISA
