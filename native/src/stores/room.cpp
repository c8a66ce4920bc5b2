#include "stores/room.hpp"

#include <algorithm>

#include "dormouse/error.hpp"

namespace dormouse {

void Block::enter(State state, Clock& clock) {
    ready_at_ = clock.now();
    state_ = state;
}

void Block::commit(Ground& ground) {
    const std::lock_guard lock(mutex_);
    if (state_ == State::cold) {
        ground.driver.host().commit(address_, bytes_);
        enter(pin_ ? State::committed : State::unpinned, ground.driver.clock());
    }
}

void Block::pin(Ground& ground) {
    const std::lock_guard lock(mutex_);
    if (state_ != State::committed) {
        return;
    }
    ground.driver.clock().catch_up(ready_at_);
    State state = State::pinned;
    try {
        ground.driver.pin(address_, bytes_);
    } catch (const error& failure) {
        state = State::unpinned;
        const std::lock_guard note(ground.mutex);
        ++ground.pin_failures;
        ground.pin_failure = failure.what();
    }
    enter(state, ground.driver.clock());
}

bool Block::ready(Clock& clock) const {
    if (state_ == State::cold || state_ == State::committed) {
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

std::size_t Room::committed_bytes() const noexcept {
    std::size_t sum = 0;
    for (const Block& block : blocks_) {
        sum += block.committed() ? block.bytes() : 0;
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
