// SPDX-License-Identifier: Apache-2.0
// How CPU work is shared between threads: one pool for the whole process, a dynamic queue of items.
// Which worker takes which item is not defined, so an item's result must not depend on the worker.
#pragma once

#include <cstdint>
#include <functional>

namespace raingauge {

// 0 or less: every CPU that this process may run on; otherwise the number asked for (at most 1024).
int resolve_threads(int threads);

// Calls fn(item, worker) once for every item in [0, items), in ascending order of starting, on at
// most `threads` threads (0 = all), the caller among them. `worker` is in [0, resolve_threads(threads))
// and no two concurrent calls share it: it indexes scratch memory. Returns when all are done. When
// items throw, no further ones start, and the exception of the lowest failed item is rethrown.
// A call from inside an item runs its items one after another on the calling thread, as worker 0.
void parallel_for(int threads, std::int64_t items,
                  const std::function<void(std::int64_t item, int worker)>& fn);

}  // namespace raingauge
