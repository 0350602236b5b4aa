// Replaces operator new of the whole executable by one that counts: for exactly one source file of
// a test executable.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <new>

namespace krait::test {

inline std::atomic<bool> counting_allocations{false};
inline std::atomic<long> allocations{0};

/// Calls `body` and returns how often any thread allocated meanwhile.
template <class Body>
long count_allocations(const Body& body) {
  allocations = 0;
  counting_allocations = true;
  body();
  counting_allocations = false;
  return allocations;
}

inline void* counted(std::size_t bytes, std::size_t alignment) {
  if (counting_allocations.load(std::memory_order_relaxed)) ++allocations;
  // aligned_alloc wants a multiple of the alignment; nothing is still a place of its own.
  const std::size_t rounded = (bytes + alignment - 1) / alignment * alignment;
  return std::aligned_alloc(alignment, rounded > 0 ? rounded : alignment);
}

inline void* counted_or_throw(std::size_t bytes, std::size_t alignment) {
  void* memory = counted(bytes, alignment);
  if (!memory) throw std::bad_alloc();
  return memory;
}

inline constexpr std::size_t kPlain = __STDCPP_DEFAULT_NEW_ALIGNMENT__;

}  // namespace krait::test

// The array forms and the rest call these. Not inlined, or gcc takes their malloc and free for a
// mismatch of new and free.
[[gnu::noinline]] void* operator new(std::size_t bytes) {
  return krait::test::counted_or_throw(bytes, krait::test::kPlain);
}
[[gnu::noinline]] void* operator new(std::size_t bytes, std::align_val_t alignment) {
  return krait::test::counted_or_throw(bytes, static_cast<std::size_t>(alignment));
}
[[gnu::noinline]] void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {
  return krait::test::counted(bytes, krait::test::kPlain);
}
[[gnu::noinline]] void* operator new(std::size_t bytes, std::align_val_t alignment,
                                     const std::nothrow_t&) noexcept {
  return krait::test::counted(bytes, static_cast<std::size_t>(alignment));
}
[[gnu::noinline]] void operator delete(void* memory) noexcept {
  std::free(memory);
}
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept {
  std::free(memory);
}
[[gnu::noinline]] void operator delete(void* memory, std::align_val_t) noexcept {
  std::free(memory);
}
[[gnu::noinline]] void operator delete(void* memory, std::size_t, std::align_val_t) noexcept {
  std::free(memory);
}
