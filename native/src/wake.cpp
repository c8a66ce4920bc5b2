// Waking: take memory, map it and copy content back, as one transaction.
//
// One thread is enough: mapping a chunk takes microseconds and its copy milliseconds, so the calls for the next chunks
// run while the first ones are still on their way, and memory without content (the KV cache) is mapped behind the last
// copy that was queued. Nothing waits before finish() but for copies that wait for their turn. Any failure gives back
// what this wake took; backups are only read, so they are as good as before.
#include "dormouse/error.hpp"
#include "transition.hpp"

namespace dormouse {

namespace {

class Patience {
   public:
    Patience(const Parts& parts, Account& account) : parts_(parts), account_(account) {}

    // Waits before another try; false when there have been enough.
    bool once_more() {
        if (used_ == parts_.options.memory_retries) {
            return false;
        }
        ++used_;
        ++account_.counters.memory_retries;
        parts_.driver.clock().sleep(parts_.options.retry_seconds);
        return true;
    }

   private:
    const Parts& parts_;
    Account& account_;
    unsigned used_ = 0;
};

void check_room(const Parts& parts, const Table::Move& move, Patience& patience) {
    std::size_t needed = 0;
    for (const SegmentPtr& segment : move.segments()) {
        needed += segment->bytes() - segment->held_bytes();
    }
    for (;;) {
        const std::size_t available = parts.memory.available();
        if (available >= needed) {
            return;
        }
        if (!patience.once_more()) {
            throw out_of_memory(needed, available, "the wake has no room, everything sleeps on");
        }
    }
}

void bring(const Parts& parts, Segment& segment, Chunk& chunk, Patience& patience) {
    for (;;) {
        try {
            const std::lock_guard lock(segment.mutex);
            chunk.bring(parts.driver, parts.memory);
            return;
        } catch (const out_of_memory&) {
            if (!patience.once_more()) {
                throw;
            }
        }
    }
}

void bring_all(const Parts& parts, const Table::Move& move, Patience& patience, Stopwatch& watch, Account& account) {
    watch.phase("queue");
    const std::unique_ptr<Transfer> transfer = parts.store.restore();
    for (const SegmentPtr& segment : move.segments()) {
        if (segment->where == TagState::offloaded) {
            for (Chunk& chunk : segment->chunks) {
                bring(parts, *segment, chunk, patience);
                transfer->add({chunk.address(), chunk.bytes(), chunk.backup.slot, 0});
                account.copied_bytes += chunk.bytes();
            }
        }
    }
    // A device that clears memory makes whoever takes more wait for that, and copies that wait for their turn here
    // would wait with it. At rest none do.
    watch.phase("hand_over");
    transfer->hand_over();
    watch.phase("map");
    for (const SegmentPtr& segment : move.segments()) {
        for (Chunk& chunk : segment->chunks) {
            bring(parts, *segment, chunk, patience);
        }
    }
    watch.phase("copy");
    transfer->finish();
    account.pulled_bytes = transfer->pulled_bytes();
}

}  // namespace

void bring_back(const Parts& parts, Table::Move& move, Stopwatch& watch, Account& account) {
    watch.phase("check");
    parts.strays.wait();
    Patience patience(parts, account);
    check_room(parts, move, patience);
    try {
        bring_all(parts, move, patience, watch, account);
    } catch (...) {
        watch.phase("roll_back");
        ++account.counters.rollbacks;
        parts.strays.suspect();
        if (parts.strays.gone()) {  // else what this wake took stays until a sleep finds the device again
            for (const SegmentPtr& segment : move.segments()) {
                const std::lock_guard lock(segment->mutex);
                account.counters.failed_releases += segment->give_back(parts.driver, parts.memory).chunks;
            }
        }
        throw;
    }
    for (const SegmentPtr& segment : move.segments()) {
        const std::lock_guard lock(segment->mutex);
        segment->where = TagState::resident;
        if (parts.options.retain == Retain::release) {
            segment->drop_backups(parts.store);
        }
    }
    move.commit();
}

}  // namespace dormouse
