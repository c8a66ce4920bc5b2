// The memory of one slot, in blocks that are committed and pinned one by one.
//
// A block is the unit of both, and a copy never straddles two: a driver may refuse one that spans two registrations.
// Blocks of 256 MiB copy at the link's full speed, pin far below the size at which drivers stall their neighbours, and
// let many threads commit one large slot while its first bytes travel already. A block that can't be pinned stays
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

inline constexpr std::size_t block_bytes = std::size_t{256} << 20;

// What all rooms of a store share.
struct Ground {
    explicit Ground(Driver& owner) : driver(owner), arena(owner.host()) {}
    Driver& driver;
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
    Block(std::byte* address, std::size_t bytes, bool pin) : address_(address), bytes_(bytes), pin_(pin) {}

    // Backs the block with pages, unless it is. Throws host_out_of_memory; the block is cold then. Thread-safe.
    void commit(Ground& ground);
    // Pins a committed block that is to be pinned; one try, after which it stays as it is. Thread-safe.
    void pin(Ground& ground);
    // Whether commit and pin have nothing more to do. This thread catches up with when that was done.
    bool ready(Clock& clock) const;
    // Unpins and gives the pages back; false when the driver refuses.
    bool tear_down(Ground& ground) noexcept;

    std::byte* address() const noexcept { return address_; }
    std::size_t bytes() const noexcept { return bytes_; }
    bool committed() const noexcept { return state_ != State::cold; }
    bool pinned() const noexcept { return state_ == State::pinned; }
    bool to_be_pinned() const noexcept { return pin_ && (state_ == State::cold || state_ == State::committed); }

   private:
    enum class State { cold, committed, unpinned, pinned };
    void enter(State state, Clock& clock);

    std::byte* const address_;
    const std::size_t bytes_;
    const bool pin_;
    std::mutex mutex_;
    std::atomic<State> state_ = State::cold;
    std::atomic<double> ready_at_ = 0;
};

class Room {
   public:
    // Takes `address`, booked in the arena of `ground`, which must outlive the room.
    Room(Ground& ground, std::byte* address, std::size_t bytes, bool pin);
    ~Room();
    Room(const Room&) = delete;
    Room& operator=(const Room&) = delete;

    std::size_t bytes() const noexcept { return bytes_; }
    std::size_t committed_bytes() const noexcept;
    std::size_t pinned_bytes() const noexcept;
    std::deque<Block>& blocks() noexcept { return blocks_; }

   private:
    Ground& ground_;
    std::byte* const address_;
    const std::size_t bytes_;
    std::deque<Block> blocks_;
};

}  // namespace dormouse
