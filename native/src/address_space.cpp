// MAP_NORESERVE: a reservation costs nothing until it is touched. MADV_DONTFORK: a child that shared the pages would
// keep them alive after the parent gave them back, and pinned pages must not be copied on write. MADV_HUGEPAGE once for
// the whole range, since each change of a mapping takes the process's memory lock for writing.
#include "address_space.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include "dormouse/error.hpp"
#include "dormouse/limits.hpp"

namespace dormouse {

namespace {

constexpr std::size_t huge_page = std::size_t{2} << 20;

}  // namespace

std::size_t whole_pages(std::size_t bytes) {
    const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    return (bytes + page - 1) / page * page;
}

void* reserve_addresses(std::size_t bytes, int protection) {
    if (bytes == 0 || bytes > unlimited / 2) {
        throw invalid_argument("reserve: " + std::to_string(bytes) + " bytes of host address space");
    }
    const std::size_t wanted = whole_pages(bytes);
    // mmap aligns to 4 KiB: take more and cut off both ends.
    const std::size_t taken = wanted + huge_page;
    void* raw = mmap(nullptr, taken, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (raw == MAP_FAILED) {
        throw host_out_of_memory(wanted, available_host_memory(), "address space of the host");
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
        throw host_out_of_memory(wanted, available_host_memory(), "address space of the host, kept from children");
    }
    madvise(begin + head, wanted, MADV_HUGEPAGE);  // a wish: kernels without huge pages refuse it
    return begin + head;
}

void unreserve_addresses(void* address, std::size_t bytes) noexcept {
    munmap(address, whole_pages(bytes));
}

}  // namespace dormouse
