// Host memory as the operating system gives it: address space first, pages when asked for.
//
// A seam because a simulated machine must not touch 61 GiB of a laptop's RAM. Pinning belongs to the device's driver
// (driver.hpp), limits to limits.hpp.
#pragma once

#include <cstddef>
#include <cstdint>

namespace dormouse {

class HostMemory {
   public:
    virtual ~HostMemory() = default;
    // Address space without pages, aligned to 2 MiB, not inherited by a forked child. Throws host_out_of_memory.
    virtual void* reserve(std::size_t bytes) = 0;
    virtual void unreserve(void* address, std::size_t bytes) noexcept = 0;
    // Backs a range with pages and touches each, huge ones where the system allows. Throws host_out_of_memory.
    virtual void commit(void* address, std::size_t bytes) = 0;
    // Gives the pages of a range back; its address space stays reserved.
    virtual void decommit(void* address, std::size_t bytes) noexcept = 0;
    virtual void copy(void* to, const void* from, std::size_t bytes) = 0;
    // As digest_of (digest.hpp), on the calling thread.
    virtual std::uint64_t digest(const void* data, std::size_t bytes, std::uint64_t first_word) = 0;
    // Bytes that can still be had without hurting anybody: MemAvailable and the cgroup's rest, whichever is less.
    virtual std::size_t available() = 0;
};

// mmap, madvise and memcpy.
HostMemory& posix_memory();

}  // namespace dormouse
