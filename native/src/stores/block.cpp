#include "stores/block.hpp"

#include <algorithm>

#include "dormouse/error.hpp"

namespace dormouse {

Block::Block(std::byte* address, std::size_t bytes, bool pin)
    : address_(address), bytes_(bytes), pin_(pin), parts_((bytes + part_bytes - 1) / part_bytes) {}

void Block::commit(Ground& ground, std::size_t part) {
    Part& mine = parts_.at(part);
    const std::size_t begin = part * part_bytes;
    const std::size_t bytes = std::min(part_bytes, bytes_ - begin);
    const std::lock_guard lock(mine.mutex);
    if (mine.committed) {
        return;
    }
    HostMemory& host = ground.driver.host();
    if (const std::size_t available = ground.checks_host_memory ? host.available() : bytes; available < bytes) {
        throw host_out_of_memory(bytes, available,
                                 "a backup: somebody took the memory that was there a moment ago, nothing was lost. "
                                 "Give the container or the host more memory, or release other backups");
    }
    host.commit(address_ + begin, bytes);
    mine.ready_at = ground.driver.clock().now();
    mine.committed = true;
    committed_ += bytes;
}

void Block::pin(Ground& ground) {
    const std::lock_guard lock(mutex_);
    if (state_ != State::raw) {
        return;
    }
    Clock& clock = ground.driver.clock();
    for (const Part& part : parts_) {
        clock.catch_up(part.ready_at);
    }
    State state = State::unpinned;
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
    ready_at_ = clock.now();
    state_ = state;
}

bool Block::ready(Clock& clock) const {
    if (state_ == State::raw) {
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
    if (committed_ != 0) {
        ground.driver.host().decommit(address_, bytes_);
    }
    return true;
}

}  // namespace dormouse
