// Host address space in which the slots of a store are booked, first fit.
//
// Address space is reserved in a few regions, each at least as large as all before it, and kept until the arena goes:
// it costs nothing until somebody commits it. Neighbours that are free become one again, so what was released fits
// larger slots too. Sizes are rounded to pages of the system and no further.
#pragma once

#include <cstddef>
#include <deque>
#include <map>
#include <mutex>
#include <span>
#include <vector>

#include "dormouse/host_memory.hpp"

namespace dormouse {

class Arena {
   public:
    // `host` must outlive the arena.
    explicit Arena(HostMemory& host) : host_(host) {}
    ~Arena();
    Arena(const Arena&) = delete;
    Arena& operator=(const Arena&) = delete;

    // Books all of `sizes` (none is 0) or nothing, in the same order. Throws host_out_of_memory for want of address
    // space.
    std::vector<std::byte*> book(std::span<const std::size_t> sizes);
    // Gives back what book() returned.
    void free(std::byte* address) noexcept;

   private:
    struct Extent {
        std::size_t bytes;
        bool free;
    };
    // Extents by their offset; they cover the region without gaps, so that free() need not allocate.
    struct Region {
        std::byte* address;
        std::size_t bytes;
        std::map<std::size_t, Extent> extents;
        std::byte* book(std::size_t wanted);
        void free(std::size_t offset) noexcept;
    };

    std::byte* book_one(std::size_t bytes, std::size_t all_that_follows);
    void free_locked(std::byte* address) noexcept;
    Region& grow(std::size_t at_least, std::size_t better);

    HostMemory& host_;
    std::mutex mutex_;
    std::deque<Region> regions_;
    std::size_t reserved_ = 0;
};

}  // namespace dormouse
