// Host memory by mmap, madvise and memcpy.
//
// A reservation is writable from the start: opening a range for each commit would take the process's memory lock for
// writing, and sixteen threads that commit their own ranges would stand in line behind it.
//
// commit() works on one thread; who is in a hurry calls it for disjoint ranges from many. A commit that fails leaves
// its whole range decommitted.
#include <sys/mman.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <system_error>

#include "address_space.hpp"
#include "dormouse/error.hpp"
#include "dormouse/host_memory.hpp"
#include "dormouse/limits.hpp"
#include "populate.hpp"

#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24
#endif

namespace dormouse {

namespace {

// madvise(2) as populate() wants it.
int advise(void* address, std::size_t bytes, int advice) {
    return madvise(address, bytes, advice);
}

class PosixMemory final : public HostMemory {
   public:
    void* reserve(std::size_t bytes) override { return reserve_addresses(bytes, PROT_READ | PROT_WRITE); }

    void unreserve(void* address, std::size_t bytes) noexcept override { unreserve_addresses(address, bytes); }

    void commit(void* address, std::size_t bytes) override {
        if (const int code = populate(address, bytes, &advise); code != 0) {
            fail(address, bytes, code);
        }
    }

    void decommit(void* address, std::size_t bytes) noexcept override {
        if (madvise(address, bytes, MADV_DONTNEED) != 0) {
            madvise(address, bytes, MADV_DONTNEED_LOCKED);  // the process locks its memory (mlockall)
        }
    }

    void copy(void* to, const void* from, std::size_t bytes) override { std::memcpy(to, from, bytes); }

    std::size_t available() override { return available_host_memory(); }

   private:
    [[noreturn]] void fail(void* address, std::size_t bytes, int code) {
        decommit(address, bytes);
        throw host_out_of_memory(bytes, available(), "pages of the host: " + std::system_category().message(code));
    }
};

}  // namespace

HostMemory& posix_memory() {
    static PosixMemory memory;
    return memory;
}

}  // namespace dormouse
