#include "stager.hpp"

#include <algorithm>
#include <system_error>

#include "dormouse/error.hpp"
#include "owned_stream.hpp"

namespace dormouse {

namespace {

// Long enough to be cheap, short enough that a stop does not notice it (seconds).
constexpr double slice = 0.002;

}  // namespace

void Stager::start(std::vector<SegmentPtr> segments, const StageOptions& options) {
    const std::lock_guard control(control_);
    {
        const std::lock_guard lock(books_);
        if (stats_.active) {
            return;
        }
    }
    if (thread_.joinable()) {
        thread_.join();
    }
    StageStats fresh;
    fresh.active = true;
    for (const SegmentPtr& segment : segments) {
        fresh.total_bytes += segment->bytes();
    }
    stop_ = std::stop_source();
    copied_ = 0;
    {
        const std::lock_guard lock(books_);
        stats_ = fresh;
    }
    const double now = parts_.driver.clock().now();
    try {
        thread_ = std::thread([this, segments = std::move(segments), options, now] {
            parts_.driver.clock().catch_up(now);
            run(segments, options);
        });
    } catch (const std::system_error& failure) {
        const std::lock_guard lock(books_);
        stats_.active = false;
        const error refusal = no_thread("a staging", failure);
        stats_.error = refusal.what();
        ended_.notify_all();
        throw refusal;
    }
}

void Stager::stop() noexcept {
    const std::lock_guard control(control_);
    stop_.request_stop();
    if (thread_.joinable()) {
        thread_.join();
        parts_.driver.clock().catch_up(end_);
    }
}

void Stager::wait() {
    std::unique_lock lock(books_);
    ended_.wait(lock, [this] { return !stats_.active; });
    parts_.driver.clock().catch_up(end_);
}

StageStats Stager::stats() const {
    const std::lock_guard lock(books_);
    return stats_;
}

void Stager::run(const std::vector<SegmentPtr>& segments, const StageOptions& options) noexcept {
    std::string error;
    try {
        parts_.strays.wait();  // a late copy may write to the same places
        const OwnedStream stream(parts_.driver, Priority::low);
        stream_ = stream.get();
        const double begin = parts_.driver.clock().now();
        for (const SegmentPtr& segment : segments) {
            for (Chunk& chunk : segment->chunks) {
                if (!stopping()) {
                    stage(*segment, chunk, options, begin);
                }
            }
        }
    } catch (const std::exception& failure) {
        parts_.strays.suspect();
        error = failure.what();
    }
    {
        const std::lock_guard lock(books_);
        end_ = parts_.driver.clock().now();
        stats_.active = false;
        stats_.error = error.empty() && stopping() ? "stopped" : error;
    }
    ended_.notify_all();
}

void Stager::stage(Segment& segment, Chunk& chunk, const StageOptions& options, double begin) {
    std::unique_lock lock(segment.mutex);
    if (segment.freed || !chunk.usable()) {
        return;
    }
    if (!chunk.backup.complete && !make_place(segment, chunk, lock)) {
        return;
    }
    const std::uint64_t generation = segment.generation.load();
    if (still_good(chunk, generation)) {
        advance(chunk.bytes());
        return;
    }
    chunk.backup = {.slot = chunk.backup.slot};
    if (const std::optional<std::uint64_t> digest = copy(segment, chunk, lock, options, begin)) {
        chunk.backup = {chunk.backup.slot, true, true, *digest, generation};
    }
}

bool Stager::still_good(const Chunk& chunk, std::uint64_t generation) {
    const Backup& known = chunk.backup;
    if (!known.complete || !known.digested || known.generation != generation) {
        return false;
    }
    const Range range{chunk.address(), chunk.bytes()};
    std::uint64_t digest = 0;
    parts_.driver.digest({&range, 1}, {&digest, 1}, stream_);
    return digest == known.digest;
}

// Touching and pinning takes a while: not under the lock, and a new slot is not the chunk's until it is done. Returns
// with the lock held; false when it was stopped or the segment was freed meanwhile.
bool Stager::make_place(Segment& segment, Chunk& chunk, std::unique_lock<FairMutex>& lock) {
    const Slot known = chunk.backup.slot;
    const std::size_t bytes = chunk.bytes();
    lock.unlock();
    const Slot slot = known != no_slot ? known : parts_.store.reserve({&bytes, 1}).front();
    std::exception_ptr failure;
    try {
        parts_.store.prepare(slot, stop_.get_token());
    } catch (...) {
        failure = std::current_exception();
    }
    lock.lock();
    if (known == no_slot && (failure || segment.freed)) {
        parts_.store.release(slot);
    }
    if (segment.freed) {
        return false;  // with its slot, so that a failure says nothing
    }
    if (failure) {
        std::rethrow_exception(failure);
    }
    chunk.backup.slot = slot;
    return !stopping();
}

// Returns the digest of what arrived, with the lock held; nothing when it was stopped or the segment was freed half
// way.
std::optional<std::uint64_t> Stager::copy(Segment& segment, Chunk& chunk, std::unique_lock<FairMutex>& lock,
                                          const StageOptions& options, double begin) {
    std::uint64_t digest = 0;
    for (std::size_t offset = 0; offset < chunk.bytes(); offset += options.piece_bytes) {
        if (stopping() || segment.freed) {
            return std::nullopt;
        }
        const std::size_t bytes = std::min(options.piece_bytes, chunk.bytes() - offset);
        const std::unique_ptr<Transfer> transfer = parts_.store.offload(Priority::low);
        transfer->add({chunk.address() + offset, bytes, chunk.backup.slot, offset});
        transfer->finish();
        digest += parts_.store.digest(chunk.backup.slot, offset, bytes);
        copied_ += bytes;
        advance(bytes);
        lock.unlock();
        pace(options, begin);
        lock.lock();
    }
    return segment.freed ? std::nullopt : std::optional{digest};
}

void Stager::pace(const StageOptions& options, double begin) {
    if (options.bytes_per_second <= 0) {
        return;
    }
    Clock& clock = parts_.driver.clock();
    const double due = begin + static_cast<double>(copied_) / options.bytes_per_second;
    for (double rest = due - clock.now(); rest > 0 && !stopping(); rest = due - clock.now()) {
        clock.sleep(std::min(rest, slice));
    }
}

void Stager::advance(std::size_t bytes) {
    const std::lock_guard lock(books_);
    stats_.done_bytes += bytes;
}

}  // namespace dormouse
