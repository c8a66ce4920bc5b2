// Host memory by mmap, madvise and memcpy.
//
// A reservation is private memory that nobody has touched (MAP_NORESERVE): it costs nothing. It is writable from the
// start, because a change of protection takes the process's memory lock for writing, and sixteen threads that commit
// their own ranges would stand in line behind it. It is kept from forked children (MADV_DONTFORK): a child that shared
// the pages would keep them alive after the parent gave them back, and pinned pages must not be copied on write.
//
// commit() works on one thread; who is in a hurry calls it for disjoint ranges from many. A commit that fails leaves
// its whole range decommitted.
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <system_error>

#include "dormouse/error.hpp"
#include "dormouse/host_memory.hpp"
#include "dormouse/limits.hpp"
#include "populate.hpp"

#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24
#endif

namespace dormouse {

namespace {

constexpr std::size_t huge_page = std::size_t{2} << 20;

std::size_t whole_pages(std::size_t bytes) {
    const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    return (bytes + page - 1) / page * page;
}

// madvise(2) as populate() wants it.
int advise(void* address, std::size_t bytes, int advice) {
    return madvise(address, bytes, advice);
}

class PosixMemory final : public HostMemory {
   public:
    void* reserve(std::size_t bytes) override {
        if (bytes == 0 || bytes > unlimited / 2) {
            throw invalid_argument("reserve: " + std::to_string(bytes) + " bytes of host address space");
        }
        const std::size_t wanted = whole_pages(bytes);
        // mmap aligns to 4 KiB: take more and cut off both ends.
        const std::size_t taken = wanted + huge_page;
        void* raw = mmap(nullptr, taken, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (raw == MAP_FAILED) {
            throw host_out_of_memory(wanted, available(), "address space of the host");
        }
        auto* begin = static_cast<char*>(raw);
        const std::size_t off = reinterpret_cast<std::size_t>(begin) % huge_page;
        const std::size_t head = off == 0 ? 0 : huge_page - off;
        if (head > 0) {
            munmap(begin, head);
        }
        if (taken - head > wanted) {
            munmap(begin + head + wanted, taken - head - wanted);
        }
        if (madvise(begin + head, wanted, MADV_DONTFORK) != 0) {
            munmap(begin + head, wanted);
            throw host_out_of_memory(wanted, available(), "address space of the host, kept from children");
        }
        madvise(begin + head, wanted, MADV_HUGEPAGE);  // a wish: kernels without huge pages refuse it
        return begin + head;
    }

    void unreserve(void* address, std::size_t bytes) noexcept override { munmap(address, whole_pages(bytes)); }

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
