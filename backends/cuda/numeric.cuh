// Scalars on the device: reading and writing any activation type as float32, the functions of the
// vocabulary, sums over a block.
#pragma once

#include <cfloat>
#include <cstdint>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <krait/dtype.h>

namespace krait::cuda {

__device__ inline float to_float(float x) {
  return x;
}
__device__ inline float to_float(__half x) {
  return __half2float(x);
}
__device__ inline float to_float(__nv_bfloat16 x) {
  return __bfloat162float(x);
}

template <class Type>
__device__ inline Type from_float(float x);
template <>
__device__ inline float from_float<float>(float x) {
  return x;
}
template <>
__device__ inline __half from_float<__half>(float x) {
  return __float2half_rn(x);
}
template <>
__device__ inline __nv_bfloat16 from_float<__nv_bfloat16>(float x) {
  return __float2bfloat16_rn(x);
}

/// Element `i` of an array whose floating-point type is known at run time only: for loads and
/// stores beside which the branch costs nothing.
__device__ inline float load_float(const void* from, DType type, std::int64_t i) {
  if (type == DType::f16) return to_float(static_cast<const __half*>(from)[i]);
  if (type == DType::bf16) return to_float(static_cast<const __nv_bfloat16*>(from)[i]);
  return static_cast<const float*>(from)[i];
}
__device__ inline void store_float(void* to, DType type, std::int64_t i, float x) {
  if (type == DType::f16)
    static_cast<__half*>(to)[i] = from_float<__half>(x);
  else if (type == DType::bf16)
    static_cast<__nv_bfloat16*>(to)[i] = from_float<__nv_bfloat16>(x);
  else
    static_cast<float*>(to)[i] = x;
}

/// softplus(x) = log(1 + eˣ) = max(x, 0) + log(1 + e), where e = e^−|x|, and log(1 + e) =
/// 2 artanh(s) = 2 (s + s³/3 + s⁵/5 + …), where s = e / (2 + e) ≤ 1/3. What is left out is less
/// than 2e-8 of it. Without a branch, so that several are made at a time.
__device__ inline float softplus(float x) {
  const float e = expf(-fabsf(x)), s = __fdividef(e, 2.0f + e), q = s * s;
  float series = 1.0f / 13;
#pragma unroll
  for (int k = 11; k > 0; k -= 2) series = fmaf(series, q, 1.0f / static_cast<float>(k));
  return fmaf(2.0f * s, series, fmaxf(x, 0.0f));
}

/// silu(x) = x / (1 + e⁻ˣ); at −∞ the limit 0, since what is divided is finite there. The quotient
/// may be off by two units in the last place: a correct one takes as long as all the rest.
__device__ inline float silu(float x) {
  return __fdividef(fmaxf(x, -FLT_MAX), 1.0f + expf(-x));
}

/// Four neighbours as float32, from a multiple of their size.
__device__ inline float4 load_quad(const float* from) {
  return *reinterpret_cast<const float4*>(from);
}
template <class X>
__device__ inline float4 load_quad(const X* from) {
  const uint2 bits = *reinterpret_cast<const uint2*>(from);
  const X(&x)[4] = reinterpret_cast<const X(&)[4]>(bits);
  return {to_float(x[0]), to_float(x[1]), to_float(x[2]), to_float(x[3])};
}

/// Two neighbours, likewise.
__device__ inline float2 load_pair(const float* from) {
  return *reinterpret_cast<const float2*>(from);
}
template <class X>
__device__ inline float2 load_pair(const X* from) {
  const std::uint32_t bits = *reinterpret_cast<const std::uint32_t*>(from);
  const X(&x)[2] = reinterpret_cast<const X(&)[2]>(bits);
  return {to_float(x[0]), to_float(x[1])};
}

/// The sum over `lanes` neighbours of a warp, on each of them; the order of additions is fixed. By
/// the whole warp.
template <int lanes>
__device__ inline float lanes_sum(float x) {
#pragma unroll
  for (int offset = lanes / 2; offset > 0; offset /= 2)
    x += __shfl_xor_sync(0xffffffffu, x, offset);
  return x;
}
__device__ inline float warp_sum(float x) {
  return lanes_sum<32>(x);
}

/// The sum over a block of so many threads, on every thread. Once in a kernel: nothing keeps a
/// second one from writing parts that are still read.
template <int threads>
__device__ inline float block_sum(float x) {
  constexpr int kWarps = threads / 32;
  static_assert(threads % 128 == 0);
  __shared__ alignas(16) float parts[kWarps];
  x = warp_sum(x);
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
  __syncthreads();
  float4 sum{};
#pragma unroll
  for (int i = 0; i < kWarps; i += 4) {
    const float4 part = load_quad(parts + i);
    sum = {sum.x + part.x, sum.y + part.y, sum.z + part.z, sum.w + part.w};
  }
  return (sum.x + sum.y) + (sum.z + sum.w);
}

/// Calls body(Type{}) with the C++ type of a floating-point storage type.
template <class Body>
auto with_float_type(DType type, Body&& body) {
  switch (type) {
    case DType::f16:
      return body(__half{});
    case DType::bf16:
      return body(__nv_bfloat16{});
    default:
      return body(float{});
  }
}

inline unsigned blocks_of(std::int64_t count, std::int64_t block) {
  return static_cast<unsigned>((count + block - 1) / block);
}

}  // namespace krait::cuda
