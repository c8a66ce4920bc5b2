// What a pool says of itself, as read-only Python classes.
#pragma once

#include <nanobind/nanobind.h>

namespace dormouse::python {

// Adds MemoryInfo, StoreStats, Transition, TagStats, StageStats, Counters and Stats to the module.
void bind_stats(nanobind::module_& module);

}  // namespace dormouse::python
