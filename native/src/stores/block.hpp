// A block of a store's memory: committed in parts, pinned as a whole.
//
// A block is one registration with the driver, and so the largest piece that one copy can move: the fewer there are,
// the less a link idles between copies. 512 MiB is far below the size at which drivers stall their neighbours. Parts
// are what threads commit side by side, so that a large block is there as soon as a small one. A block that can't be
// pinned stays unpinned, and its bytes go through the ring.
#pragma once

#include <atomic>
#include <cstddef>
#include <deque>
#include <mutex>
#include <string>

#include "dormouse/driver.hpp"
#include "stores/arena.hpp"

namespace dormouse {

inline constexpr std::size_t block_bytes = std::size_t{512} << 20;
inline constexpr std::size_t part_bytes = std::size_t{64} << 20;

// What all blocks of a store share.
struct Ground {
    Ground(Driver& owner, bool checks) : driver(owner), checks_host_memory(checks), arena(owner.host()) {}
    Driver& driver;
    const bool checks_host_memory;
    Arena arena;
    // Pinned memory that the driver would not unpin: it stays as it is, never used again.
    std::atomic<std::size_t> lost = 0;
    // Bytes of rooms that nobody books any more and that are not taken down yet.
    std::atomic<std::size_t> leaving = 0;
    std::atomic<std::size_t> leaving_pinned = 0;
    std::mutex mutex;
    std::size_t pin_failures = 0;  // under mutex
    std::string pin_failure;       // under mutex: the last one
};

class Block {
   public:
    Block(std::byte* address, std::size_t bytes, bool pin);

    std::size_t parts() const noexcept { return parts_.size(); }
    // Backs one part with pages, unless it has them. Looks for room first: touching more than there is would
    // end the process. Throws host_out_of_memory; the part has no pages then. Thread-safe.
    void commit(Ground& ground, std::size_t part);
    // Pins the block, if it is to be pinned: one try, after which it stays as it is. Wants all parts committed by calls
    // that this thread made or waited for. Thread-safe.
    void pin(Ground& ground);
    // Whether commit and pin have nothing more to do. This thread catches up with when that was done.
    bool ready(Clock& clock) const;
    // Unpins and gives the pages back; false when the driver refuses.
    bool tear_down(Ground& ground) noexcept;

    std::byte* address() const noexcept { return address_; }
    std::size_t bytes() const noexcept { return bytes_; }
    std::size_t committed_bytes() const noexcept { return committed_; }
    bool committed() const noexcept { return committed_ == bytes_; }
    bool pinned() const noexcept { return state_ == State::pinned; }
    bool to_be_pinned() const noexcept { return pin_ && state_ == State::raw; }

   private:
    enum class State { raw, unpinned, pinned };
    struct Part {
        std::mutex mutex;
        bool committed = false;
        double ready_at = 0;
    };

    std::byte* const address_;
    const std::size_t bytes_;
    const bool pin_;
    std::deque<Part> parts_;
    std::atomic<std::size_t> committed_ = 0;
    std::mutex mutex_;
    std::atomic<State> state_ = State::raw;
    std::atomic<double> ready_at_ = 0;
};

}  // namespace dormouse
