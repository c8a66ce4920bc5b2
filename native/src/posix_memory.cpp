// Host memory by mmap, madvise and memcpy.
//
// A reservation is writable from the start: opening a range for each commit would take the process's memory lock for
// writing, and sixteen threads that commit their own ranges would stand in line behind it.
//
// commit() touches page by page, on one thread; who is in a hurry calls it for disjoint ranges from many. That is
// faster than to have the kernel populate the range (MADV_POPULATE_WRITE), which holds the process's memory lock all
// the while and so stands in the way of a driver that pins: medians of 2.2 against 2.8 s for a first offload of 61 GiB
// on two H200s (benchmarks/h200-experiments.log).
#include <sys/mman.h>

#include <cstring>

#include "address_space.hpp"
#include "dormouse/digest.hpp"
#include "dormouse/host_memory.hpp"
#include "dormouse/limits.hpp"

#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24
#endif

namespace dormouse {

namespace {

class PosixMemory final : public HostMemory {
   public:
    void* reserve(std::size_t bytes) override { return reserve_addresses(bytes, PROT_READ | PROT_WRITE); }

    void unreserve(void* address, std::size_t bytes) noexcept override { unreserve_addresses(address, bytes); }

    // An atomic "or nothing" is a write to the kernel and none to anybody else.
    void commit(void* address, std::size_t bytes) override {
        const std::size_t page = whole_pages(1);
        for (std::size_t at = 0; at < bytes; at += page) {
            __atomic_fetch_or(static_cast<char*>(address) + at, char{0}, __ATOMIC_RELAXED);
        }
    }

    void decommit(void* address, std::size_t bytes) noexcept override {
        if (madvise(address, bytes, MADV_DONTNEED) != 0) {
            madvise(address, bytes, MADV_DONTNEED_LOCKED);  // the process locks its memory (mlockall)
        }
    }

    void copy(void* to, const void* from, std::size_t bytes) override { std::memcpy(to, from, bytes); }

    std::uint64_t digest(const void* data, std::size_t bytes, std::uint64_t first_word) override {
        return digest_of(data, bytes, first_word);
    }

    std::size_t available() override { return available_host_memory(); }
};

}  // namespace

HostMemory& posix_memory() {
    static auto* const memory = new PosixMemory;  // never destroyed: a pool may be used until the process ends
    return *memory;
}

}  // namespace dormouse
