// Shapes, symbolic or concrete, and views of tensors in memory.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>

#include <krait/dtype.h>
#include <krait/export.h>

namespace krait {

inline constexpr int kMaxRank = 4;

/// One extent: a number, or a symbol plus a number ("S+1"). Symbols stand for what only a call
/// knows: T tokens, S sequences, M rows that need logits, C slots of a state.
struct Dim {
  std::int64_t value = 0;
  char symbol = 0;

  constexpr Dim() = default;
  constexpr Dim(std::int64_t number) : value(number) {}
  constexpr Dim(char letter, std::int64_t plus) : value(plus), symbol(letter) {}

  constexpr bool symbolic() const { return symbol != 0; }
  friend constexpr bool operator==(const Dim&, const Dim&) = default;
};

namespace dims {
inline constexpr Dim T{'T', 0};       ///< tokens of all sequences of a call
inline constexpr Dim S{'S', 0};       ///< sequences of a call
inline constexpr Dim starts{'S', 1};  ///< entries of `starts`
inline constexpr Dim M{'M', 0};       ///< rows that need logits
inline constexpr Dim C{'C', 0};       ///< slots of a state
}  // namespace dims

/// The extents of a tensor, outermost first; at most kMaxRank of them.
class KRAIT_API Shape {
 public:
  Shape() = default;
  Shape(std::initializer_list<Dim> dims) : Shape(std::span(dims.begin(), dims.size())) {}
  /// Extents beyond kMaxRank make the shape invalid(); no valid tensor has it.
  explicit Shape(std::span<const Dim> dims);
  explicit Shape(std::span<const std::int64_t> dims);

  int rank() const { return rank_; }
  bool invalid() const { return rank_ < 0; }
  const Dim& operator[](int axis) const { return dims_[axis]; }
  Dim& operator[](int axis) { return dims_[axis]; }
  std::span<const Dim> span() const { return {dims_.data(), rank_ < 0 ? 0u : unsigned(rank_)}; }
  bool symbolic() const;
  /// The product of the extents; −1 if it is symbolic or does not fit 63 bits.
  std::int64_t elements() const;
  KRAIT_API friend bool operator==(const Shape& a, const Shape& b);

 private:
  std::array<Dim, kMaxRank> dims_{};
  int rank_ = 0;
};

/// "[T, 1536]", "[S+1]", "[74, 16]".
KRAIT_API std::string to_string(const Dim& dim);
KRAIT_API std::string to_string(const Shape& shape);

/// A tensor somewhere in a device's memory: neither owned nor copied. Strides count elements; the
/// innermost one is 1, any other may be larger than dense (a slice) or 0 (the same for every row).
/// Of block types, extents and strides count elements, too, and rows are whole blocks.
struct TensorView {
  void* memory = nullptr;   ///< host or device address, or the backend's handle of a buffer
  std::int64_t offset = 0;  ///< bytes from there to the first element
  DType dtype = DType::f32;
  int rank = 0;
  std::array<std::int64_t, kMaxRank> dim{};
  std::array<std::int64_t, kMaxRank> stride{};

  /// Whether there is a tensor (none has rank 0): optional operands of an op may be left out.
  explicit operator bool() const { return rank > 0; }
  /// The first element, where memory is an address.
  template <class Element>
  Element* as() const {
    return reinterpret_cast<Element*>(static_cast<std::byte*>(memory) + offset);
  }
  std::int64_t elements() const {
    std::int64_t product = 1;
    for (int axis = 0; axis < rank; ++axis) product *= dim[axis];
    return product;
  }
};

/// A dense row-major view of `shape` (no symbols) at `memory` + `offset` bytes.
KRAIT_API TensorView dense_view(void* memory, DType dtype, const Shape& shape,
                                std::int64_t offset = 0);
/// Whether the rows of `view` follow each other without gaps.
KRAIT_API bool is_dense(const TensorView& view);
KRAIT_API Shape shape_of(const TensorView& view);

}  // namespace krait
