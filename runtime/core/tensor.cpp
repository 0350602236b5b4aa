#include <krait/tensor.h>

namespace krait {

Shape::Shape(std::span<const Dim> dims) {
  if (dims.size() > kMaxRank) {
    rank_ = -1;
    return;
  }
  rank_ = static_cast<int>(dims.size());
  for (int axis = 0; axis < rank_; ++axis) dims_[axis] = dims[axis];
}

Shape::Shape(std::span<const std::int64_t> dims) {
  if (dims.size() > kMaxRank) {
    rank_ = -1;
    return;
  }
  rank_ = static_cast<int>(dims.size());
  for (int axis = 0; axis < rank_; ++axis) dims_[axis] = dims[axis];
}

bool Shape::symbolic() const {
  for (const Dim& dim : span()) {
    if (dim.symbolic()) return true;
  }
  return false;
}

std::int64_t Shape::elements() const {
  std::int64_t product = 1;
  for (const Dim& dim : span()) {
    if (dim.symbolic() || dim.value < 0) return -1;
    if (__builtin_mul_overflow(product, dim.value, &product)) return -1;
  }
  return product;
}

bool operator==(const Shape& a, const Shape& b) {
  if (a.rank_ != b.rank_) return false;
  for (int axis = 0; axis < a.rank_; ++axis) {
    if (a[axis] != b[axis]) return false;
  }
  return true;
}

std::string to_string(const Dim& dim) {
  if (!dim.symbolic()) return std::to_string(dim.value);
  std::string text(1, dim.symbol);
  if (dim.value > 0) text += "+" + std::to_string(dim.value);
  if (dim.value < 0) text += std::to_string(dim.value);
  return text;
}

std::string to_string(const Shape& shape) {
  if (shape.invalid()) return "[more than 4 dimensions]";
  std::string text = "[";
  for (int axis = 0; axis < shape.rank(); ++axis) {
    if (axis) text += ", ";
    text += to_string(shape[axis]);
  }
  return text + "]";
}

TensorView dense_view(void* memory, DType dtype, const Shape& shape, std::int64_t offset) {
  TensorView view;
  view.memory = memory;
  view.offset = offset;
  view.dtype = dtype;
  view.rank = shape.rank();
  std::int64_t stride = 1;
  for (int axis = view.rank - 1; axis >= 0; --axis) {
    view.dim[axis] = shape[axis].value;
    view.stride[axis] = stride;
    stride *= shape[axis].value;
  }
  return view;
}

bool is_dense(const TensorView& view) {
  std::int64_t stride = 1;
  for (int axis = view.rank - 1; axis >= 0; --axis) {
    if (view.dim[axis] != 1 && view.stride[axis] != stride) return false;
    stride *= view.dim[axis];
  }
  return true;
}

Shape shape_of(const TensorView& view) {
  return Shape(std::span(view.dim.data(), static_cast<std::size_t>(view.rank)));
}

}  // namespace krait
