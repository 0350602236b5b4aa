// How fast this machine's threads read memory: the bound that decoding is compared with.
#pragma once

#include "backends/cpu/thread_pool.h"
#include <krait/status.h>

namespace krait::cpu {

/// Bytes per second of reading a buffer of `bytes` front to back, shared among the pool's threads
/// in blocks; the best of several passes after one that fills the caches as far as they go.
Result<double> measure_read_bandwidth(ThreadPool& pool, std::int64_t bytes);

}  // namespace krait::cpu
