// Finding one's place in packed sequences.
#pragma once

#include <cstdint>

namespace krait::cuda {

struct Sequences {
  const std::int32_t* starts;    ///< [count + 1]
  const std::int32_t* slot_in;   ///< [count]
  const std::int32_t* slot_out;  ///< [count]
  int count;

  /// The sequence that token `t` belongs to: the last that starts at or before it.
  __device__ int of_token(std::int64_t t) const {
    int low = 0, high = count;  // starts[low] <= t < starts[high]
    while (high - low > 1) {
      const int middle = (low + high) / 2;
      (starts[middle] <= t ? low : high) = middle;
    }
    return low;
  }
};

}  // namespace krait::cuda
