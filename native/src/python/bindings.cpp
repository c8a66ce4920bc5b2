// The module dormouse_native._core: the pool as Python sees it. _core.pyi documents every name.
//
// Every call gives up the GIL while the pool works, so that an engine's other threads go on during a sleep. torch's
// malloc and free don't come this way: they are C functions (torch_abi.cpp) and never touch Python.
#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "dormouse/error.hpp"
#include "dormouse/pool.hpp"
#include "dormouse/torch_abi.hpp"
#include "errors.hpp"
#include "stats.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace dormouse::python {
namespace {

using Tags = std::vector<std::string>;
using WithoutGil = nb::call_guard<nb::gil_scoped_release>;

// A share of a pool. An installed pool outlives the interpreter, so it can't be a Python object itself.
class Handle {
   public:
    Handle(std::shared_ptr<Pool> pool, int device) : pool_(std::move(pool)), device_(device) {}
    Pool& pool() const noexcept { return *pool_; }
    int device() const noexcept { return device_; }
    void install() const { dormouse::install(pool_, device_); }

   private:
    std::shared_ptr<Pool> pool_;
    int device_;
};

Retain retain_from(const std::string& word) {
    if (word == "keep") return Retain::keep;
    if (word == "release") return Retain::release;
    throw invalid_argument("retain is \"keep\" or \"release\", not \"" + word + "\"");
}

void construct(Handle* self, const std::string& driver, int device, const std::string& library, std::size_t capacity,
               const std::string& store, unsigned threads, std::size_t ring_buffer, bool check_host_memory, bool pull,
               const std::string& retain, std::size_t chunk_bytes, std::size_t keep_up_to, unsigned memory_retries,
               double retry_seconds, double collect_seconds) {
    PoolOptions options;
    options.store = {.kind = store,
                     .threads = threads,
                     .ring_buffer = ring_buffer,
                     .check_host_memory = check_host_memory,
                     .pull = pull};
    options.retain = retain_from(retain);
    options.chunk_bytes = chunk_bytes;
    options.keep_up_to = keep_up_to;
    options.memory_retries = memory_retries;
    options.retry_seconds = retry_seconds;
    options.collect_seconds = collect_seconds;
    auto made = make_driver(driver, {.device = device, .library = library, .capacity = capacity});
    new (self) Handle(std::make_shared<Pool>(std::move(made), device, options), device);
}

Transition sleep(Handle& self, std::optional<int> level, const std::optional<Tags>& offload) {
    if (level && offload) throw invalid_argument("sleep takes a level or offload_tags, not both");
    return offload ? self.pool().sleep(*offload) : self.pool().sleep(level.value_or(1));
}

void bind_pool(nb::module_& module) {
    const PoolOptions pool;
    const StageOptions stage;
    nb::class_<Handle>(module, "Pool")
        .def("__init__", construct, "driver"_a = "cuda", "device"_a = 0, nb::kw_only(), "library"_a = "",
             "capacity"_a = 0, "store"_a = pool.store.kind, "threads"_a = pool.store.threads,
             "ring_buffer"_a = pool.store.ring_buffer, "check_host_memory"_a = pool.store.check_host_memory,
             "pull"_a = pool.store.pull, "retain"_a = "keep", "chunk_bytes"_a = pool.chunk_bytes,
             "keep_up_to"_a = pool.keep_up_to, "memory_retries"_a = pool.memory_retries,
             "retry_seconds"_a = pool.retry_seconds, "collect_seconds"_a = pool.collect_seconds, WithoutGil())
        .def_prop_ro("device", &Handle::device)
        .def_prop_ro("driver", [](Handle& self) { return std::string(self.pool().driver().name()); })
        .def(
            "malloc",
            [](Handle& self, std::size_t bytes, const std::string& tag) { return self.pool().malloc(bytes, tag); },
            "bytes"_a, "tag"_a, WithoutGil())
        .def(
            "free", [](Handle& self, Address address) { self.pool().free(address); }, "address"_a, WithoutGil())
        .def(
            "size_of", [](Handle& self, Address address) { return self.pool().size_of(address); }, "address"_a,
            WithoutGil())
        .def("sleep", sleep, "level"_a = nb::none(), nb::kw_only(), "offload_tags"_a = nb::none(), WithoutGil())
        .def(
            "wake",
            [](Handle& self, const std::optional<Tags>& tags) { return self.pool().wake(tags.value_or(Tags())); },
            "tags"_a = nb::none(), WithoutGil())
        .def(
            "discard", [](Handle& self, const Tags& tags) { return self.pool().discard(tags); }, "tags"_a, WithoutGil())
        .def(
            "stage",
            [](Handle& self, double bytes_per_second, std::size_t piece_bytes) {
                self.pool().stage({.bytes_per_second = bytes_per_second, .piece_bytes = piece_bytes});
            },
            nb::kw_only(), "bytes_per_second"_a = stage.bytes_per_second, "piece_bytes"_a = stage.piece_bytes,
            WithoutGil())
        .def(
            "wait_staged", [](Handle& self) { self.pool().wait_staged(); }, WithoutGil())
        .def(
            "stop_staging", [](Handle& self) { self.pool().stop_staging(); }, WithoutGil())
        .def(
            "mark_dirty",
            [](Handle& self, const std::optional<Tags>& tags) { self.pool().mark_dirty(tags.value_or(Tags())); },
            "tags"_a = nb::none(), WithoutGil())
        .def(
            "release_backups",
            [](Handle& self, const std::optional<Tags>& tags) {
                return self.pool().release_backups(tags.value_or(Tags()));
            },
            "tags"_a = nb::none(), WithoutGil())
        .def(
            "stats", [](Handle& self) { return self.pool().stats(); }, WithoutGil())
        .def("install", &Handle::install, WithoutGil());
}

}  // namespace
}  // namespace dormouse::python

NB_MODULE(_core, module) {
    using namespace dormouse::python;
    // An installed pool lives until the process ends, and Python's share of it with it: that is no leak.
    nb::set_leak_warnings(false);
    translate_errors();
    bind_stats(module);
    bind_pool(module);
    module.def(
        "installed",
        [](int device) -> std::optional<Handle> {
            auto pool = dormouse::installed(device);
            if (!pool) return std::nullopt;
            return Handle(std::move(pool), device);
        },
        "device"_a = 0);
    module.def("set_tag", [](std::string tag) { return dormouse::set_tag(std::move(tag)); }, "tag"_a);
}
