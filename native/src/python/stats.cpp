// One Python class for each struct, one read-only attribute for each field, under the same name: _core.pyi documents
// them, and a test holds the two together.
#include "stats.hpp"

#include <nanobind/stl/map.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "dormouse/pool.hpp"

namespace nb = nanobind;

namespace dormouse::python {

void bind_stats(nb::module_& module) {
    nb::class_<MemoryInfo>(module, "MemoryInfo").def_ro("free", &MemoryInfo::free).def_ro("total", &MemoryInfo::total);

    nb::class_<StoreStats>(module, "StoreStats")
        .def_ro("kind", &StoreStats::kind)
        .def_ro("reason", &StoreStats::reason)
        .def_ro("reserved", &StoreStats::reserved)
        .def_ro("committed", &StoreStats::committed)
        .def_ro("pinned", &StoreStats::pinned)
        .def_ro("pulls", &StoreStats::pulls);

    nb::class_<Transition>(module, "Transition")
        .def_ro("kind", &Transition::kind)
        .def_ro("seconds", &Transition::seconds)
        .def_ro("phases", &Transition::phases)
        .def_ro("copied_bytes", &Transition::copied_bytes)
        .def_ro("pulled_bytes", &Transition::pulled_bytes)
        .def_ro("clean_bytes", &Transition::clean_bytes)
        .def_ro("mismatched_bytes", &Transition::mismatched_bytes)
        .def_ro("error", &Transition::error);

    nb::class_<TagStats>(module, "TagStats")
        .def_prop_ro("state", [](const TagStats& tag) { return to_string(tag.state); })
        .def_ro("segments", &TagStats::segments)
        .def_ro("bytes", &TagStats::bytes)
        .def_ro("mapped_bytes", &TagStats::mapped_bytes)
        .def_ro("backup_bytes", &TagStats::backup_bytes)
        .def_ro("kept_bytes", &TagStats::kept_bytes);

    nb::class_<StageStats>(module, "StageStats")
        .def_ro("active", &StageStats::active)
        .def_ro("done_bytes", &StageStats::done_bytes)
        .def_ro("total_bytes", &StageStats::total_bytes)
        .def_ro("error", &StageStats::error);

    nb::class_<Counters>(module, "Counters")
        .def_ro("sleeps", &Counters::sleeps)
        .def_ro("wakes", &Counters::wakes)
        .def_ro("discards", &Counters::discards)
        .def_ro("stagings", &Counters::stagings)
        .def_ro("digest_mismatches", &Counters::digest_mismatches)
        .def_ro("memory_retries", &Counters::memory_retries)
        .def_ro("rollbacks", &Counters::rollbacks)
        .def_ro("failed_releases", &Counters::failed_releases);

    nb::class_<PoolStats>(module, "Stats")
        .def_ro("driver", &PoolStats::driver)
        .def_ro("version", &PoolStats::version)
        .def_ro("uuid", &PoolStats::uuid)
        .def_ro("device", &PoolStats::device)
        .def_ro("memory", &PoolStats::memory)
        .def_ro("mapped_bytes", &PoolStats::mapped_bytes)
        .def_ro("tags", &PoolStats::tags)
        .def_ro("store", &PoolStats::store)
        .def_ro("staging", &PoolStats::staging)
        .def_ro("counters", &PoolStats::counters)
        .def_ro("last", &PoolStats::last);
}

}  // namespace dormouse::python
