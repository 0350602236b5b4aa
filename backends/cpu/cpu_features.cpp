#include "backends/cpu/cpu_features.h"

#include <cstdint>
#include <cstring>
#include <thread>

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__linux__)
#include <sched.h>
#endif

namespace krait::cpu {
namespace {

#if defined(__x86_64__)

/// The state components that the operating system saves: bit 1 xmm, 2 ymm, 5 to 7 zmm and masks.
std::uint64_t saved_state() {
  std::uint32_t low = 0, high = 0;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return std::uint64_t{high} << 32 | low;
}

std::string processor_name() {
  std::uint32_t words[12] = {};
  for (unsigned leaf = 0; leaf < 3; ++leaf) {
    std::uint32_t* w = words + 4 * leaf;
    if (!__get_cpuid(0x80000002u + leaf, &w[0], &w[1], &w[2], &w[3])) return "processor";
  }
  char text[sizeof words + 1] = {};
  std::memcpy(text, words, sizeof words);
  std::string name(text);
  name.erase(0, name.find_first_not_of(' '));
  name.erase(name.find_last_not_of(' ') + 1);
  return name.empty() ? "processor" : name;
}

Features ask() {
  Features found;
  found.name = processor_name();
  std::uint32_t a = 0, b = 0, c1 = 0, b7 = 0, c7 = 0, d = 0;
  if (!__get_cpuid(1, &a, &b, &c1, &d)) return found;
  found.sse42 = c1 & bit_SSE4_2;
  if (!(c1 & bit_OSXSAVE) || !__get_cpuid_count(7, 0, &a, &b7, &c7, &d)) return found;
  constexpr std::uint64_t kYmm = 0x6, kZmm = 0xe6;
  const std::uint64_t saved = saved_state();
  found.avx2 = (saved & kYmm) == kYmm && (c1 & bit_AVX) && (c1 & bit_FMA) && (c1 & bit_F16C) &&
               (b7 & bit_AVX2);
  found.avx512 = found.avx2 && (saved & kZmm) == kZmm && (b7 & bit_AVX512F) &&
                 (b7 & bit_AVX512BW) && (b7 & bit_AVX512DQ) && (b7 & bit_AVX512VL);
  found.avx512_vnni = found.avx512 && (c7 & bit_AVX512VNNI);
  if (std::uint32_t a71 = 0; __get_cpuid_count(7, 1, &a71, &b, &c7, &d)) {
    found.avx_vnni = found.avx2 && (a71 >> 4 & 1);
    found.avx512_bf16 = found.avx512 && (a71 >> 5 & 1);
  }
  return found;
}

#else

Features ask() {
  Features found;
  found.name = "processor";
#if defined(__aarch64__)
  found.neon = true;  // part of the base instruction set
#endif
  return found;
}

#endif

}  // namespace

const Features& features() {
  static const Features found = ask();
  return found;
}

int available_cores() {
#if defined(__linux__)
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0) return CPU_COUNT(&set);
#endif
  const unsigned cores = std::thread::hardware_concurrency();
  return cores > 0 ? static_cast<int>(cores) : 1;
}

}  // namespace krait::cpu
