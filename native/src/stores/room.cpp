#include "stores/room.hpp"

#include <algorithm>

#include "dormouse/error.hpp"

namespace dormouse {

Room::Room(Ground& ground, std::byte* address, std::size_t bytes, bool pin)
    : ground_(ground), address_(address), bytes_(bytes) {
    for (std::size_t at = 0; at < bytes; at += block_bytes) {
        blocks_.emplace_back(address + at, std::min(block_bytes, bytes - at), pin);
    }
}

Room::~Room() {
    std::size_t lost = 0;
    for (Block& block : blocks_) {
        lost += block.tear_down(ground_) ? 0 : block.bytes();
    }
    ground_.lost += lost;
    if (lost == 0) {
        ground_.arena.free(address_);
    }
}

void Room::check_piece(std::size_t offset, std::size_t bytes) const {
    if (offset > bytes_ || bytes > bytes_ - offset) {
        throw invalid_argument("a piece of " + readable(bytes) + " at " + std::to_string(offset) +
                               " reaches beyond its slot of " + readable(bytes_));
    }
}

std::size_t Room::committed_bytes() const noexcept {
    std::size_t sum = 0;
    for (const Block& block : blocks_) {
        sum += block.committed_bytes();
    }
    return sum;
}

std::size_t Room::pinned_bytes() const noexcept {
    std::size_t sum = 0;
    for (const Block& block : blocks_) {
        sum += block.pinned() ? block.bytes() : 0;
    }
    return sum;
}

}  // namespace dormouse
