#include "stores/arena_store.hpp"

#include <utility>

#include "address_space.hpp"
#include "dormouse/error.hpp"
#include "dormouse/limits.hpp"

namespace dormouse {

namespace {

constexpr const char* raise_memlock =
    "a pinned backup under RLIMIT_MEMLOCK: nothing was moved. Raise the limit (ulimit -l unlimited, "
    "LimitMEMLOCK=infinity, or the capability IPC_LOCK), or choose the kind \"ring\", which pins only a few buffers";
constexpr const char* raise_memory =
    "a backup: nothing was moved. Give the container or the host more memory, release other backups, or sleep "
    "without one (level 2)";

}  // namespace

ArenaStore::Kind ArenaStore::kind_of(const std::string& name) {
    if (name == "registered") {
        return Kind::registered;
    }
    if (name == "ring") {
        return Kind::ring;
    }
    if (name == "auto") {
        return Kind::automatic;
    }
    throw invalid_argument("unknown kind of backup store \"" + name + "\": it is auto, registered or ring");
}

ArenaStore::ArenaStore(Driver& driver, const StoreOptions& options, std::function<std::size_t()> lockable)
    : driver_(driver),
      kind_(kind_of(options.kind)),
      lockable_(std::move(lockable)),
      pull_(options.pull && kind_ != Kind::ring),
      pull_pace_(options.pull_pace),
      ground_(driver, options.check_host_memory),
      equipment_(driver, options.ring_buffer, options.threads),
      reaper_(driver.clock()) {
    if (options.ring_buffer == 0) {
        throw invalid_argument("a ring buffer of no bytes moves nothing");
    }
    if (kind_ == Kind::registered && !driver_.can_pin()) {
        throw invalid_argument("the driver \"" + std::string(driver_.name()) +
                               "\" can't pin memory of the host: choose the kind \"ring\" or \"auto\"");
    }
    // No size is known yet; a limit below one buffer is one that nobody thought of.
    pins_ = may_pin(options.ring_buffer);
    pulls();  // now: the first wake must not wait for a compiler
}

bool ArenaStore::may_pin(std::size_t bytes) {
    if (kind_ == Kind::ring) {
        reason_ = "asked for";
        return false;
    }
    if (!driver_.can_pin()) {
        reason_ = "the driver can't pin memory of the host";
        return false;
    }
    const std::size_t needed =
        bytes + bytes_of([](const Block& block) { return block.to_be_pinned() ? block.bytes() : 0; });
    const std::size_t allowed = lockable_();
    if (needed <= allowed) {
        reason_ = kind_ == Kind::registered ? "asked for" : "the driver can pin and RLIMIT_MEMLOCK allows it";
        return true;
    }
    if (kind_ == Kind::registered) {
        throw host_out_of_memory(needed, allowed, raise_memlock);
    }
    reason_ = "RLIMIT_MEMLOCK leaves " + readable(allowed) + " to lock and " + readable(needed) + " are wanted";
    return false;
}

void ArenaStore::check_host_memory(std::size_t bytes) {
    if (!ground_.checks_host_memory) {
        return;
    }
    const std::size_t needed =
        bytes + bytes_of([](const Block& block) { return block.bytes() - block.committed_bytes(); });
    const std::size_t available = driver_.host().available();
    if (needed > available) {
        throw host_out_of_memory(needed, available, raise_memory);
    }
}

std::vector<Slot> ArenaStore::reserve(std::span<const std::size_t> sizes) {
    if (sizes.empty()) {
        return {};
    }
    std::size_t total = 0;
    for (const std::size_t bytes : sizes) {
        if (bytes == 0 || bytes > unlimited / 4 || total > unlimited / 4) {
            throw invalid_argument("a slot of " + readable(bytes) + " can't be booked");
        }
        total += whole_pages(bytes);
    }

    drain();
    const std::lock_guard lock(mutex_);
    check_host_memory(total);
    pins_ = may_pin(total);
    const std::vector<std::byte*> places = ground_.arena.book(sizes);
    std::vector<std::shared_ptr<Room>> rooms;
    std::vector<Slot> slots;
    try {
        rooms.reserve(sizes.size());
        slots.reserve(sizes.size());
        rooms_.reserve(rooms_.size() + sizes.size());
        for (std::size_t i = 0; i < sizes.size(); ++i) {
            rooms.push_back(std::make_shared<Room>(ground_, places[i], whole_pages(sizes[i]), pins_));
        }
    } catch (...) {
        for (std::size_t i = rooms.size(); i < places.size(); ++i) {
            ground_.arena.free(places[i]);
        }
        throw;
    }
    for (std::shared_ptr<Room>& room : rooms) {
        slots.push_back(++last_);
        rooms_.emplace(last_, std::move(room));
    }
    return slots;
}

void ArenaStore::release(Slot slot) noexcept {
    std::shared_ptr<Room> room;
    {
        const std::lock_guard lock(mutex_);
        const auto it = rooms_.find(slot);
        if (it == rooms_.end()) {
            return;
        }
        room = std::move(it->second);
        rooms_.erase(it);
    }
    const std::size_t committed = room->committed_bytes();
    const std::size_t pinned = room->pinned_bytes();
    ground_.leaving += committed;
    ground_.leaving_pinned += pinned;
    const auto take_down = [this, committed, pinned](std::shared_ptr<Room>& last) {
        last.reset();
        ground_.leaving -= committed;
        ground_.leaving_pinned -= pinned;
    };
    try {
        // Moved, not shared: who drops it last takes it down, and that must be done when the task is.
        reaper_.post([take_down, last = std::move(room)]() mutable { take_down(last); });
    } catch (...) {  // no thread to be had: then here and now
        take_down(room);
    }
}

void ArenaStore::drain() noexcept {
    try {
        reaper_.finish();
    } catch (...) {
        // Nothing that it does throws.
    }
}

std::shared_ptr<Room> ArenaStore::find(Slot slot) {
    const std::lock_guard lock(mutex_);
    const auto it = rooms_.find(slot);
    if (it == rooms_.end()) {
        throw invalid_argument("slot " + std::to_string(slot) + " is not booked");
    }
    return it->second;
}

void ArenaStore::prepare(Slot slot, std::stop_token stop) {
    const std::shared_ptr<Room> room = find(slot);
    bool pinned = true;
    for (Block& block : room->blocks()) {
        for (std::size_t part = 0; part < block.parts(); ++part) {
            if (stop.stop_requested()) {
                return;
            }
            block.commit(ground_, part);
        }
        block.pin(ground_);
        pinned = pinned && block.pinned();
    }
    if (!pinned) {  // it will take the ring: have its buffers made
        equipment_.take_buffers(equipment_.lanes(Direction::offload));
    }
}

std::uint64_t ArenaStore::digest(Slot slot, std::size_t offset, std::size_t bytes) {
    const std::shared_ptr<Room> room = find(slot);
    room->check_piece(offset, bytes);
    return driver_.host().digest(room->address() + offset, bytes, offset / sizeof(std::uint64_t));
}

bool ArenaStore::pulls() noexcept {
    return pull_ && driver_.can_pull();
}

std::unique_ptr<Transfer> ArenaStore::offload(Priority priority) {
    return std::make_unique<StoreTransfer>(
        ground_, equipment_, [this](Slot slot) { return find(slot); }, Direction::offload, priority);
}

std::unique_ptr<Transfer> ArenaStore::restore() {
    return std::make_unique<StoreTransfer>(
        ground_, equipment_, [this](Slot slot) { return find(slot); },
        pulls() ? std::optional(pull_pace_) : std::nullopt);
}

std::size_t ArenaStore::bytes_of(const std::function<std::size_t(const Block&)>& count) const {
    std::size_t bytes = 0;
    for (const auto& [slot, room] : rooms_) {
        for (const Block& block : room->blocks()) {
            bytes += count(block);
        }
    }
    return bytes;
}

StoreStats ArenaStore::stats() {
    const std::lock_guard lock(mutex_);
    const std::size_t lost = ground_.lost;
    StoreStats stats;
    stats.kind = pins_ ? "registered" : "ring";
    stats.reason = reason_;
    stats.reserved = bytes_of(&Block::bytes);
    stats.committed = lost + ground_.leaving + bytes_of(&Block::committed_bytes);
    stats.pinned = lost + ground_.leaving_pinned + equipment_.buffer_bytes +
                   bytes_of([](const Block& block) { return block.pinned() ? block.bytes() : 0; });
    stats.pulls = pins_ && pulls();
    const std::lock_guard note(ground_.mutex);
    if (ground_.pin_failures != 0) {
        stats.reason += "; could not be pinned: " + std::to_string(ground_.pin_failures) +
                        " blocks, the last because " + ground_.pin_failure;
    }
    if (lost != 0) {
        stats.reason += "; the driver would not unpin " + readable(lost);
    }
    return stats;
}

}  // namespace dormouse
