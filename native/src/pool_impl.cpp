#include "pool_impl.hpp"

#include <unistd.h>

#include <algorithm>

#include "address_space.hpp"
#include "dormouse/error.hpp"

namespace dormouse {

namespace {

std::size_t checked_granularity(const PoolOptions& options, std::size_t granularity) {
    if (options.chunk_bytes == 0 || options.chunk_bytes % granularity != 0) {
        throw invalid_argument("chunk_bytes is " + std::to_string(options.chunk_bytes) +
                               ": it must be a multiple of the device's granularity, " + std::to_string(granularity));
    }
    return granularity;
}

PoolOptions checked(PoolOptions options) {
    if (options.grain_bytes == 0 || options.grain_bytes % whole_pages(1) != 0) {
        throw invalid_argument("grain_bytes is " + std::to_string(options.grain_bytes) +
                               ": it must be a multiple of a page, " + std::to_string(whole_pages(1)));
    }
    if (!(options.collect_seconds >= 0 && options.collect_seconds <= 3600)) {
        throw invalid_argument("collect_seconds is " + std::to_string(options.collect_seconds) +
                               ": it must be 0 (never) to 3600");
    }
    return options;
}

std::string words_of(const std::exception_ptr& failure) {
    if (!failure) {
        return {};
    }
    try {
        std::rethrow_exception(failure);
    } catch (const std::exception& caught) {
        return caught.what();
    }
}

}  // namespace

Pool::Impl::Impl(std::unique_ptr<Driver> device_driver, int device_index, PoolOptions pool_options, const Seams& seams)
    : driver(std::move(device_driver)),
      device(device_index),
      options(checked(std::move(pool_options))),
      granularity(checked_granularity(options, driver->granularity())),
      memory(seams.memory ? seams.memory(*driver) : make_driver_memory(*driver, options.collect_seconds)),
      store(seams.store ? seams.store(*driver) : make_store(*driver, options.store)),
      strays(*driver),
      stream(*driver, Priority::normal),
      parts{*driver, *memory, *store, options, strays, stream.get()},
      process(::getpid()),
      stager(parts) {
    // Loads what digests need now: the first sleep must not wait for a compiler, nor find no room for its result.
    static_cast<void>(driver->can_digest());
}

Pool::Impl::~Impl() {
    stager.stop();
    try {
        driver->synchronize_device();
    } catch (...) {
        // The device is gone; what follows frees what it still can.
    }
    for (const SegmentPtr& segment : table.segments()) {
        drop(*segment);
    }
    for (const SegmentPtr& segment : orphans) {
        drop(*segment);
    }
}

void Pool::Impl::expect_own_process() const {
    if (::getpid() != process) {
        throw illegal_state("this pool belongs to process " + std::to_string(process) +
                            ": start engines with spawn, not fork");
    }
}

Segment::Leftover Pool::Impl::drop(Segment& segment) noexcept {
    const std::lock_guard lock(segment.mutex);
    segment.freed = true;
    segment.drop_backups(*store);
    return segment.give_back(*driver, *memory);
}

void Pool::Impl::bury(const SegmentPtr& segment, bool idle) {
    if (idle && drop(*segment).chunks == 0) {
        return;
    }
    std::size_t held = 0;
    {
        const std::lock_guard lock(segment->mutex);
        segment->freed = true;
        for (const Chunk& chunk : segment->chunks) {
            held += chunk.holds_memory() ? 1 : 0;
        }
    }
    const std::lock_guard lock(books);
    counters.failed_releases += held;
    orphans.push_back(segment);
}

Segment::Leftover Pool::Impl::sweep() {
    strays.wait();
    Segment::Leftover leftover;
    for (const SegmentPtr& segment : table.segments()) {
        const std::lock_guard lock(segment->mutex);
        if (segment->where != TagState::resident) {
            leftover.add(segment->give_back(*driver, *memory));
        }
    }
    const std::lock_guard lock(books);
    if (!orphans.empty()) {
        driver->synchronize_device();  // some are orphans because it failed before
    }
    std::erase_if(orphans, [&](const SegmentPtr& segment) {
        const Segment::Leftover rest = drop(*segment);
        leftover.add(rest);
        return rest.chunks == 0;
    });
    return leftover;
}

Transition Pool::Impl::run(std::string kind, const Table::Wish& wish, Step step, Counter counter) {
    const std::lock_guard lock(transition);
    stager.stop();
    Stopwatch watch(driver->clock());
    Account account;
    std::exception_ptr failure;
    bool moved = false;
    try {
        Table::Move move = table.begin(wish);
        moved = !move.empty();
        if (moved) {
            step(parts, move, watch, account);
        }
    } catch (...) {
        failure = std::current_exception();
    }
    watch.finish();
    if (!failure && step == &put_to_sleep) {
        try {
            report_leftover(sweep());
        } catch (...) {
            failure = std::current_exception();
        }
    }
    Transition result = record(std::move(kind), watch, account, failure, moved, counter);
    if (failure) {
        std::rethrow_exception(failure);
    }
    return result;
}

Transition Pool::Impl::record(std::string kind, Stopwatch& watch, const Account& account,
                              const std::exception_ptr& failure, bool moved, Counter counter) {
    Transition result{.kind = std::move(kind),
                      .seconds = watch.seconds(),
                      .phases = watch.phases(),
                      .copied_bytes = account.copied_bytes,
                      .pulled_bytes = account.pulled_bytes,
                      .clean_bytes = account.clean_bytes,
                      .mismatched_bytes = account.mismatched_bytes,
                      .error = words_of(failure)};
    const std::lock_guard lock(books);
    counters.digest_mismatches += account.counters.digest_mismatches;
    counters.memory_retries += account.counters.memory_retries;
    counters.rollbacks += account.counters.rollbacks;
    counters.failed_releases += account.counters.failed_releases;
    if (moved && !failure) {
        ++(counters.*counter);
    }
    if (moved || failure) {
        last = result;
    }
    return result;
}

Table::Wish Pool::Impl::everything(TagState state) const {
    Table::Wish wish;
    for (const auto& [tag, now] : table.tags()) {
        wish.emplace(tag, state);
    }
    return wish;
}

Table::Wish Pool::Impl::only(const std::vector<std::string>& tags, TagState state) const {
    table.expect_known(tags);
    Table::Wish wish;
    for (const std::string& tag : tags) {
        wish.emplace(tag, state);
    }
    return wish;
}

std::vector<SegmentPtr> Pool::Impl::segments_of(const std::vector<std::string>& tags) const {
    table.expect_known(tags);
    std::vector<SegmentPtr> result = table.segments();
    if (!tags.empty()) {
        std::erase_if(result, [&](const SegmentPtr& segment) {
            return std::find(tags.begin(), tags.end(), segment->tag()) == tags.end();
        });
    }
    return result;
}

}  // namespace dormouse
