#include "stores/room.hpp"

#include <algorithm>

#include "dormouse/error.hpp"

namespace dormouse {

void Block::prepare(Ground& ground) {
    const std::lock_guard lock(mutex_);
    if (ready(ground.driver.clock())) {
        return;
    }
    ground.driver.host().commit(address_, bytes_);
    State state = State::committed;
    if (pin_) {
        try {
            ground.driver.pin(address_, bytes_);
            state = State::pinned;
        } catch (const error& failure) {
            const std::lock_guard note(ground.mutex);
            ++ground.pin_failures;
            ground.pin_failure = failure.what();
        }
    }
    ready_at_ = ground.driver.clock().now();
    state_ = state;
}

bool Block::ready(Clock& clock) const {
    if (state_ == State::cold) {
        return false;
    }
    clock.catch_up(ready_at_);
    return true;
}

bool Block::tear_down(Ground& ground) noexcept {
    try {
        if (pinned()) {
            ground.driver.unpin(address_, bytes_);
        }
    } catch (...) {
        return false;
    }
    if (committed()) {
        ground.driver.host().decommit(address_, bytes_);
    }
    return true;
}

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

}  // namespace dormouse
