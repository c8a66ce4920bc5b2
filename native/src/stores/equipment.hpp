// What a store keeps for its transfers: streams and pinned buffers, made once, and how many threads may be used.
#pragma once

#include <atomic>
#include <cstddef>
#include <vector>

#include "dormouse/driver.hpp"
#include "stores/ring.hpp"
#include "stores/shelf.hpp"

namespace dormouse {

// Outlives every transfer that uses it.
struct Equipment {
    // `threads`: 0 means three quarters of the cores, 16 at most.
    Equipment(Driver& driver, std::size_t ring_buffer, unsigned threads);

    Shelf<CopyStream>& streams(Priority priority) { return priority == Priority::low ? low : normal; }
    unsigned lanes(Direction direction) const;
    // Pairs for `lanes` lanes, or as many as can be had. None where no buffer can be had and the device copies
    // pageable memory too; where it does not, throws why there is none.
    std::vector<Shelf<BufferPair>::Borrowed> take_buffers(unsigned lanes);

    Driver& driver;
    const std::size_t ring_buffer;              // bytes
    const unsigned threads;                     // that commit parts of blocks
    std::atomic<std::size_t> buffer_bytes = 0;  // made so far
    Shelf<CopyStream> normal;
    Shelf<CopyStream> low;
    Shelf<BufferPair> buffers;
};

}  // namespace dormouse
