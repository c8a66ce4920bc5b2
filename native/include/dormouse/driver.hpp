// The one seam to a device: what CUDA's VMM, AscendCL, plain RAM and a simulation have in common.
//
// A driver serves one device. Calls may come from any thread; a driver makes its own context current where its
// library wants one. Failures are out_of_memory (the device's memory) or driver_error (everything else); a failed call
// has changed nothing. Sizes and addresses of device memory are multiples of granularity().
//
// A range of addresses is reserved once and keeps its place for ever; physical memory comes and goes beneath it. One
// mapping is one physical allocation at one place: it is mapped whole and unmapped whole.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "dormouse/clock.hpp"
#include "dormouse/host_memory.hpp"

namespace dormouse {

using Address = std::uint64_t;   // in the device's address space
using Physical = std::uint64_t;  // a handle of physical device memory
using Stream = void*;            // a queue of copies and kernels, in order within itself

struct MemoryInfo {
    std::size_t free = 0;   // bytes
    std::size_t total = 0;  // bytes
};

struct Range {
    Address address = 0;
    std::size_t bytes = 0;
};

enum class Priority { normal, low };

class Driver {
   public:
    virtual ~Driver() = default;
    Driver() = default;
    Driver(const Driver&) = delete;
    Driver& operator=(const Driver&) = delete;

    // "cuda", "acl", "host" or "sim".
    virtual std::string_view name() const noexcept = 0;
    // The library's own version, for reports.
    virtual std::string version() = 0;
    // As other tools print it (NVML, npu-smi); empty where the device has none.
    virtual std::string uuid() = 0;
    virtual std::size_t granularity() = 0;
    virtual MemoryInfo memory() = 0;

    // Address space.
    virtual Address reserve(std::size_t bytes) = 0;
    virtual void unreserve(Address address, std::size_t bytes) = 0;

    // Physical memory, and its place. `allow` grants this device access to a fresh mapping. The memory is free again
    // when its handle is released and its mapping undone; mapping_keeps_memory(): that may be in either order, else the
    // unmap comes first.
    virtual Physical create(std::size_t bytes) = 0;
    virtual void release(Physical physical) = 0;
    virtual bool mapping_keeps_memory() noexcept = 0;
    // Whether the books on released memory are done by the next create(), which takes the longer the more it was.
    virtual bool collects_late() noexcept { return false; }
    virtual void map(Address address, std::size_t bytes, Physical physical) = 0;
    virtual void allow(Address address, std::size_t bytes) = 0;
    virtual void unmap(Address address, std::size_t bytes) = 0;

    // Copies. Host memory must be pinned (pin or host_alloc) unless copies_pageable() holds.
    virtual Stream create_stream(Priority priority) = 0;
    virtual void destroy_stream(Stream stream) noexcept = 0;
    virtual void copy_to_device(Address to, const void* from, std::size_t bytes, Stream stream) = 0;
    virtual void copy_to_host(void* to, Address from, std::size_t bytes, Stream stream) = 0;
    virtual void synchronize(Stream stream) = 0;
    // Waits for all work of this device by this process.
    virtual void synchronize_device() = 0;

    // Copies to the device by its own processors, which read pinned host memory themselves. While a device clears
    // memory that was released, its copy engine takes turns with that; its processors don't. At rest the engine is
    // faster and costs no processor anything, so a pull is for the time of the clearing alone. Address, source and size
    // are multiples of 16 bytes. Throws illegal_state where can_pull() is false.
    virtual bool can_pull() noexcept { return false; }
    virtual void pull(Address to, const void* from, std::size_t bytes, Stream stream);
    // Whether all that was queued on a stream is done; does not wait. Whoever can't wait to learn which of two ways is
    // moving asks it, so only drivers that can_pull() need an answer; others throw illegal_state.
    virtual bool idle(Stream stream);

    // Host memory that copies can use. can_pin(): whether pin() exists at all on this device and version.
    virtual HostMemory& host() = 0;
    virtual bool can_pin() noexcept = 0;
    virtual void pin(void* address, std::size_t bytes) = 0;
    virtual void unpin(void* address, std::size_t bytes) = 0;
    virtual void* host_alloc(std::size_t bytes) = 0;
    virtual void host_free(void* address) = 0;
    virtual bool copies_pageable() noexcept = 0;

    // Digests (digest.hpp) of device ranges, made by the device itself; returns when all are known. Ranges are
    // multiples of 16 bytes. Throws illegal_state where can_digest() is false.
    virtual bool can_digest() noexcept = 0;
    virtual void digest(std::span<const Range> ranges, std::span<std::uint64_t> out, Stream stream) = 0;

    virtual Clock& clock() { return real_clock(); }
};

struct DriverOptions {
    int device = 0;
    // cuda, acl: the shared object to load instead of the system's own (tests).
    std::string library;
    // host, sim: capacity of the device in bytes; 0 means a default.
    std::size_t capacity = 0;
};

// `kind` is "cuda", "acl", "host" or "sim"; throws invalid_argument for any other, and driver_error with the loader's
// words where the library or a symbol is missing.
std::unique_ptr<Driver> make_driver(std::string_view kind, const DriverOptions& options);

// One factory per driver, each in its own file.
std::unique_ptr<Driver> make_cuda_driver(const DriverOptions& options);
std::unique_ptr<Driver> make_acl_driver(const DriverOptions& options);
std::unique_ptr<Driver> make_host_driver(const DriverOptions& options);
std::unique_ptr<Driver> make_sim_driver(const DriverOptions& options);

}  // namespace dormouse
