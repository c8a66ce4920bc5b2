// The memory of one slot, in blocks. A copy never straddles two: a driver may refuse one that spans two registrations.
#pragma once

#include <cstddef>
#include <deque>

#include "stores/block.hpp"

namespace dormouse {

class Room {
   public:
    // Takes `address`, booked in the arena of `ground`, which must outlive the room.
    Room(Ground& ground, std::byte* address, std::size_t bytes, bool pin);
    ~Room();
    Room(const Room&) = delete;
    Room& operator=(const Room&) = delete;

    std::byte* address() const noexcept { return address_; }
    std::size_t bytes() const noexcept { return bytes_; }
    // Throws invalid_argument unless the room has `bytes` from `offset` on.
    void check_piece(std::size_t offset, std::size_t bytes) const;
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
