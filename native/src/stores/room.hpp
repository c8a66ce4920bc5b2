// The memory of one slot, in blocks that are committed and pinned one by one.
//
// A block is the unit of both, and a copy never straddles two: a driver may refuse one that spans two registrations.
// Blocks of 128 MiB copy at the link's full speed, pin far below the size at which drivers stall their neighbours, and
// let many threads prepare one large slot while its first bytes travel already. A block that can't be pinned stays
// unpinned, and its bytes go through the ring.
#pragma once

#include <atomic>
#include <cstddef>
#include <deque>
#include <mutex>
#include <string>

#include "dormouse/driver.hpp"
#include "stores/arena.hpp"

namespace dormouse {

inline constexpr std::size_t block_bytes = std::size_t{128} << 20;

// What all rooms of a store share.
struct Ground {
    explicit Ground(Driver& owner) : driver(owner), arena(owner.host()) {}
    Driver& driver;
    Arena arena;
    // Pinned memory that the driver would not unpin: it stays as it is, never used again.
    std::atomic<std::size_t> lost = 0;
    std::mutex mutex;
    std::size_t pin_failures = 0;  // under mutex
    std::string pin_failure;       // under mutex: the last one
};

class Block {
   public:
    Block(std::byte* address, std::size_t bytes, bool pin) : address_(address), bytes_(bytes), pin_(pin) {}

    // Commits and pins, unless that is done. Throws host_out_of_memory; the block is cold then. Thread-safe.
    void prepare(Ground& ground);
    // Whether the block is committed, and pinned if that can be had. This thread catches up with when that was done.
    bool ready(Clock& clock) const;
    // Unpins and gives the pages back; false when the driver refuses.
    bool tear_down(Ground& ground) noexcept;

    std::byte* address() const noexcept { return address_; }
    std::size_t bytes() const noexcept { return bytes_; }
    bool committed() const noexcept { return state_ != State::cold; }
    bool pinned() const noexcept { return state_ == State::pinned; }
    bool to_be_pinned() const noexcept { return pin_ && state_ == State::cold; }

   private:
    enum class State { cold, committed, pinned };

    std::byte* const address_;
    const std::size_t bytes_;
    const bool pin_;
    std::mutex mutex_;
    std::atomic<State> state_ = State::cold;
    double ready_at_ = 0;  // written before state_ leaves cold
};

class Room {
   public:
    // Takes `address`, booked in the arena of `ground`, which must outlive the room.
    Room(Ground& ground, std::byte* address, std::size_t bytes, bool pin);
    ~Room();
    Room(const Room&) = delete;
    Room& operator=(const Room&) = delete;

    std::size_t bytes() const noexcept { return bytes_; }
    std::deque<Block>& blocks() noexcept { return blocks_; }

   private:
    Ground& ground_;
    std::byte* const address_;
    const std::size_t bytes_;
    std::deque<Block> blocks_;
};

}  // namespace dormouse
