// Going to sleep: make sure of the backups, then give the device memory back.
//
// Until the last backup is complete nothing is given up, so any failure up to there leaves everything as it was. From
// the first unmap on there is no way back that could not fail too (it would need memory that somebody else may take),
// so the sleep goes forward: what can't be given back now stays with its chunk, is tried once more at the end, and
// again by the next sleep or wake.
#include <span>

#include "dormouse/error.hpp"
#include "grains.hpp"
#include "transition.hpp"

namespace dormouse {

namespace {

struct Candidate {
    Segment* segment;
    Chunk* chunk;
    std::uint64_t generation;
    std::uint64_t digest = 0;
    bool mismatched = false;                 // believed, and the digests disagree
    std::vector<std::uint64_t> grains = {};  // of one that is mismatched
};

// Content that must survive: all of a tag that is offloaded, the small segments of one that is discarded.
bool survives(const Table::Move& move, const Segment& segment, const PoolOptions& options) {
    return move.target(segment) == TagState::offloaded ||
           segment.bytes() <= kept_up_to(segment.tag(), options.keep_up_to);
}

std::vector<Candidate> candidates(const Table::Move& move, const PoolOptions& options) {
    std::vector<Candidate> result;
    for (const SegmentPtr& segment : move.segments()) {
        if (segment->where == TagState::resident && survives(move, *segment, options)) {
            for (Chunk& chunk : segment->chunks) {
                result.push_back({segment.get(), &chunk, segment->generation.load()});
            }
        }
    }
    return result;
}

void digest_all(const Parts& parts, std::span<Candidate> chunks) {
    std::vector<Range> ranges;
    for (const Candidate& candidate : chunks) {
        ranges.push_back({candidate.chunk->address(), candidate.chunk->bytes()});
    }
    std::vector<std::uint64_t> digests(ranges.size());
    parts.driver.digest(ranges, digests, parts.stream);
    for (std::size_t i = 0; i < digests.size(); ++i) {
        chunks[i].digest = digests[i];
    }
}

// Those whose backup can't be trusted.
std::vector<Candidate> dirty_ones(std::span<const Candidate> chunks, bool digested, Account& account) {
    std::vector<Candidate> dirty;
    for (const Candidate& candidate : chunks) {
        const Backup& backup = candidate.chunk->backup;
        const bool believed = backup.complete && backup.digested && backup.generation == candidate.generation;
        if (believed && digested && backup.digest == candidate.digest) {
            account.clean_bytes += candidate.chunk->bytes();
            continue;
        }
        dirty.push_back(candidate);
        if (believed && digested) {
            dirty.back().mismatched = true;
            account.mismatched_bytes += candidate.chunk->bytes();
            ++account.counters.digest_mismatches;
        }
    }
    return dirty;
}

// Of the chunks that were believed: the others are copied whole, whatever their grains say.
void digest_grains(const Parts& parts, std::span<Candidate> dirty) {
    for (Candidate& candidate : dirty) {
        if (candidate.mismatched) {
            const Range whole{candidate.chunk->address(), candidate.chunk->bytes()};
            const std::vector<Range> grains = grains_of(whole, parts.options.grain_bytes);
            candidate.grains.resize(grains.size());
            parts.driver.digest(grains, candidate.grains, parts.stream);
        }
    }
}

// The pipeline is the only writer now, but stats() may be reading.
void set_backup(const Candidate& candidate, const Backup& backup) {
    const std::lock_guard lock(candidate.segment->mutex);
    candidate.chunk->backup = backup;
}

// Slots for chunks without one; given back unless kept, or unless stray copies may still write to them: then they wait
// with their chunks for the next sleep.
class Booking {
   public:
    Booking(const Parts& parts, std::span<const Candidate> chunks) : store_(parts.store), strays_(parts.strays) {
        std::vector<std::size_t> sizes;
        for (const Candidate& candidate : chunks) {
            if (candidate.chunk->backup.slot == no_slot) {
                sizes.push_back(candidate.chunk->bytes());
                chunks_.push_back(candidate);
            }
        }
        const std::vector<Slot> slots = store_.reserve(sizes);
        for (std::size_t i = 0; i < slots.size(); ++i) {
            set_backup(chunks_[i], {.slot = slots[i]});
        }
    }
    ~Booking() {
        if (chunks_.empty()) {
            return;
        }
        strays_.suspect();
        if (!strays_.gone()) {
            return;
        }
        for (const Candidate& candidate : chunks_) {
            store_.release(candidate.chunk->backup.slot);
            set_backup(candidate, {});
        }
    }
    Booking(const Booking&) = delete;
    Booking& operator=(const Booking&) = delete;
    void keep() noexcept { chunks_.clear(); }

   private:
    BackupStore& store_;
    Strays& strays_;
    std::vector<Candidate> chunks_;
};

void copy_out(const Parts& parts, std::span<const Candidate> dirty, bool digested, Account& account) {
    const std::unique_ptr<Transfer> transfer = parts.store.offload(Priority::normal);
    std::size_t copied = 0;
    std::size_t all = 0;
    for (const Candidate& candidate : dirty) {
        const Chunk& chunk = *candidate.chunk;
        const Slot slot = chunk.backup.slot;
        const std::vector<Stretch> stretches =
            to_copy(chunk.bytes(), parts.options.grain_bytes, chunk.backup.grains, candidate.grains);
        all += chunk.bytes();
        set_backup(candidate, {.slot = slot});
        for (const Stretch& stretch : stretches) {
            transfer->add({chunk.address() + stretch.offset, stretch.bytes, slot, stretch.offset});
            copied += stretch.bytes;
        }
    }
    transfer->finish();
    account.copied_bytes += copied;
    account.clean_bytes += all - copied;
    for (const Candidate& candidate : dirty) {
        set_backup(candidate, {candidate.chunk->backup.slot, true, digested, candidate.digest, candidate.generation,
                               candidate.grains});
    }
}

Segment::Leftover give_back_all(const Parts& parts, const Table::Move& move) {
    Segment::Leftover leftover;
    for (const SegmentPtr& segment : move.segments()) {
        const std::lock_guard lock(segment->mutex);
        leftover.add(segment->give_back(parts.driver, parts.memory));
    }
    return leftover;
}

bool nothing_was_unmapped(const Table::Move& move) {
    for (const SegmentPtr& segment : move.segments()) {
        for (const Chunk& chunk : segment->chunks) {
            if (segment->where == TagState::resident && !chunk.usable()) {
                return false;
            }
        }
    }
    return true;
}

void settle(const Parts& parts, const Table::Move& move) {
    for (const SegmentPtr& segment : move.segments()) {
        const std::lock_guard lock(segment->mutex);
        const bool kept = segment->where != TagState::discarded && survives(move, *segment, parts.options);
        segment->where = kept ? TagState::offloaded : TagState::discarded;
        if (!kept) {
            segment->drop_backups(parts.store);
        }
    }
}

}  // namespace

void put_to_sleep(const Parts& parts, Table::Move& move, Stopwatch& watch, Account& account) {
    watch.phase("synchronize");
    // Kernels that were queued may still use what is about to go: they are waited for like a stray copy.
    parts.strays.suspect();
    parts.strays.wait();

    std::vector<Candidate> chunks = candidates(move, parts.options);
    watch.phase("book");
    Booking booking(parts, chunks);
    // Asked once: a device that learns to digest meanwhile must not be believed to have digested.
    const bool digested = parts.driver.can_digest();
    if (!chunks.empty() && digested) {
        watch.phase("digest");
        digest_all(parts, chunks);
    }
    std::vector<Candidate> dirty = dirty_ones(chunks, digested, account);
    if (account.mismatched_bytes != 0) {
        watch.phase("compare");
        digest_grains(parts, dirty);
    }
    if (!dirty.empty()) {
        watch.phase("copy");
        copy_out(parts, dirty, digested, account);
    }
    booking.keep();

    watch.phase("unmap");
    Segment::Leftover leftover = give_back_all(parts, move);
    if (leftover.chunks != 0 && nothing_was_unmapped(move)) {
        std::rethrow_exception(leftover.cause);
    }
    if (leftover.chunks != 0) {
        leftover = give_back_all(parts, move);
    }
    settle(parts, move);
    move.commit();
    account.counters.failed_releases += leftover.chunks;
    report_leftover(leftover);
}

void report_leftover(const Segment::Leftover& leftover) {
    if (leftover.chunks == 0) {
        return;
    }
    const std::string text = "asleep, but " + readable(leftover.bytes) +
                             " of the device could not be given back: sleep again to try again, or restart the process";
    try {
        std::rethrow_exception(leftover.cause);
    } catch (const driver_error& cause) {
        throw driver_error(cause.call, cause.code, text);
    } catch (const std::exception& cause) {
        throw illegal_state(text + " (" + cause.what() + ")");
    }
}

}  // namespace dormouse
