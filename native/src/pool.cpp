#include "dormouse/pool.hpp"

#include <unistd.h>

#include <algorithm>
#include <exception>
#include <mutex>

#include "dormouse/error.hpp"
#include "stager.hpp"
#include "transition.hpp"

namespace dormouse {

namespace {

std::size_t checked_chunk(const PoolOptions& options, std::size_t granularity) {
    if (options.chunk_bytes == 0 || options.chunk_bytes % granularity != 0) {
        throw invalid_argument("chunk_bytes is " + std::to_string(options.chunk_bytes) +
                               ": it must be a multiple of the device's granularity, " + std::to_string(granularity));
    }
    return options.chunk_bytes;
}

}  // namespace

struct Pool::Impl {
    std::unique_ptr<Driver> driver;
    int device;
    PoolOptions options;
    std::size_t granularity;
    std::size_t chunk_bytes;
    std::unique_ptr<DeviceMemory> memory;
    std::unique_ptr<BackupStore> store;
    Parts parts;
    Table table;
    pid_t process = ::getpid();

    std::mutex transition;  // one sleep, wake, discard or start of a staging at a time
    Stager stager;

    std::mutex books;
    Counters counters;
    std::optional<Transition> last;
    std::vector<SegmentPtr> orphans;  // freed, but the device would not take their memory back yet

    Impl(std::unique_ptr<Driver> device_driver, int device_index, PoolOptions pool_options)
        : driver(std::move(device_driver)),
          device(device_index),
          options(std::move(pool_options)),
          granularity(driver->granularity()),
          chunk_bytes(checked_chunk(options, granularity)),
          memory(make_driver_memory(*driver)),
          store(make_store(*driver, options.store)),
          parts{*driver, *memory, *store, options, driver->create_stream(Priority::normal)},
          stager(parts) {}

    ~Impl() {
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
        driver->destroy_stream(parts.stream);
    }

    // A forked child has the parent's books but none of its device: it must not touch either.
    void expect_own_process() const {
        if (::getpid() != process) {
            throw illegal_state("this pool belongs to process " + std::to_string(process) +
                                ": start engines with spawn, not fork");
        }
    }

    Segment::Leftover drop(Segment& segment) noexcept {
        const std::lock_guard lock(segment.mutex);
        segment.freed = true;
        segment.drop_backups(*store);
        return segment.give_back(*driver, *memory);
    }

    // Device memory that an earlier call could not give back.
    Segment::Leftover sweep() {
        Segment::Leftover leftover;
        for (const SegmentPtr& segment : table.segments()) {
            const std::lock_guard lock(segment->mutex);
            if (segment->where != TagState::resident) {
                leftover.add(segment->give_back(*driver, *memory));
            }
        }
        const std::lock_guard lock(books);
        std::erase_if(orphans, [&](const SegmentPtr& segment) {
            const Segment::Leftover rest = segment->give_back(*driver, *memory);
            leftover.add(rest);
            return rest.chunks == 0;
        });
        return leftover;
    }

    using Step = void (*)(const Parts&, Table::Move&, Stopwatch&, Account&);

    Transition run(std::string kind, const Table::Wish& wish, Step step, std::uint64_t Counters::* counter) {
        expect_own_process();
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

    Transition record(std::string kind, Stopwatch& watch, const Account& account, const std::exception_ptr& failure,
                      bool moved, std::uint64_t Counters::* counter) {
        Transition result{.kind = std::move(kind),
                          .seconds = watch.seconds(),
                          .phases = watch.phases(),
                          .copied_bytes = account.copied_bytes,
                          .clean_bytes = account.clean_bytes,
                          .mismatched_bytes = account.mismatched_bytes,
                          .error = {}};
        if (failure) {
            try {
                std::rethrow_exception(failure);
            } catch (const std::exception& caught) {
                result.error = caught.what();
            }
        }
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

    Table::Wish everything(TagState state) const {
        Table::Wish wish;
        for (const auto& [tag, now] : table.tags()) {
            wish.emplace(tag, state);
        }
        return wish;
    }

    Table::Wish only(const std::vector<std::string>& tags, TagState state) const {
        table.expect_known(tags);
        Table::Wish wish;
        for (const std::string& tag : tags) {
            wish.emplace(tag, state);
        }
        return wish;
    }

    // The segments of `tags`; all of them when empty.
    std::vector<SegmentPtr> segments_of(const std::vector<std::string>& tags) const {
        table.expect_known(tags);
        std::vector<SegmentPtr> result = table.segments();
        if (!tags.empty()) {
            std::erase_if(result, [&](const SegmentPtr& segment) {
                return std::find(tags.begin(), tags.end(), segment->tag()) == tags.end();
            });
        }
        return result;
    }
};

Pool::Pool(std::unique_ptr<Driver> driver, int device, PoolOptions options)
    : impl_(std::make_unique<Impl>(std::move(driver), device, std::move(options))) {}

Pool::~Pool() {
    if (impl_ && ::getpid() != impl_->process) {
        static_cast<void>(impl_.release());  // the parent's: its destructor would call into a device that is not ours
    }
}

Address Pool::malloc(std::size_t bytes, const std::string& tag) {
    impl_->expect_own_process();
    if (bytes == 0 || tag.empty()) {
        throw invalid_argument(bytes == 0 ? "an allocation of 0 bytes has no address" : "a tag needs a name");
    }
    impl_->table.expect_resident(tag);
    const std::size_t granularity = impl_->granularity;
    if (bytes > SIZE_MAX - granularity) {
        throw out_of_memory(bytes, impl_->memory->available(), "an allocation under '" + tag + "'");
    }
    const std::size_t rounded = (bytes + granularity - 1) / granularity * granularity;
    auto segment = std::make_shared<Segment>(*impl_->driver, tag, rounded, impl_->chunk_bytes);
    segment->bring(*impl_->driver, *impl_->memory);
    try {
        impl_->table.add(segment);
    } catch (...) {
        impl_->drop(*segment);
        throw;
    }
    return segment->address();
}

void Pool::free(Address address) {
    impl_->expect_own_process();
    const SegmentPtr segment = impl_->table.take(address);
    if (segment->where == TagState::resident) {
        // torch has no deferred reclaim on this path: kernels that were queued may still use the bytes.
        impl_->driver->synchronize_device();
    }
    if (impl_->drop(*segment).chunks != 0) {
        const std::lock_guard lock(impl_->books);
        ++impl_->counters.failed_releases;
        impl_->orphans.push_back(segment);
    }
}

Transition Pool::sleep(const std::vector<std::string>& offload) {
    Table::Wish wish = impl_->everything(TagState::discarded);
    for (const auto& [tag, state] : impl_->only(offload, TagState::offloaded)) {
        wish[tag] = state;
    }
    return impl_->run("sleep", wish, &put_to_sleep, &Counters::sleeps);
}

Transition Pool::sleep(int level) {
    wanted_at_level("", level);
    Table::Wish wish;
    for (const auto& [tag, state] : impl_->table.tags()) {
        wish.emplace(tag, wanted_at_level(tag, level));
    }
    return impl_->run("sleep", wish, &put_to_sleep, &Counters::sleeps);
}

Transition Pool::wake(const std::vector<std::string>& tags) {
    const Table::Wish wish =
        tags.empty() ? impl_->everything(TagState::resident) : impl_->only(tags, TagState::resident);
    return impl_->run("wake", wish, &bring_back, &Counters::wakes);
}

Transition Pool::discard(const std::vector<std::string>& tags) {
    return impl_->run("discard", impl_->only(tags, TagState::discarded), &put_to_sleep, &Counters::discards);
}

void Pool::stage(const StageOptions& options) {
    impl_->expect_own_process();
    if (options.piece_bytes == 0 || options.piece_bytes % 4096 != 0) {
        throw invalid_argument("piece_bytes is " + std::to_string(options.piece_bytes) +
                               ": it must be a multiple of 4096");
    }
    if (!impl_->driver->can_digest()) {
        throw illegal_state("driver '" + std::string{impl_->driver->name()} +
                            "' can't digest device memory, so a staged copy could never be trusted");
    }
    const std::lock_guard lock(impl_->transition);
    std::vector<SegmentPtr> segments = impl_->table.segments();
    std::erase_if(segments, [](const SegmentPtr& segment) {
        return segment->where != TagState::resident || wanted_at_level(segment->tag(), 1) != TagState::offloaded;
    });
    impl_->stager.start(std::move(segments), options);
    const std::lock_guard books(impl_->books);
    ++impl_->counters.stagings;
}

void Pool::wait_staged() { impl_->stager.wait(); }

void Pool::stop_staging() { impl_->stager.stop(); }

void Pool::mark_dirty(const std::vector<std::string>& tags) {
    for (const SegmentPtr& segment : impl_->segments_of(tags)) {
        ++segment->generation;
    }
}

std::size_t Pool::release_backups(const std::vector<std::string>& tags) {
    impl_->expect_own_process();
    const std::lock_guard lock(impl_->transition);
    impl_->stager.stop();
    std::size_t freed = 0;
    for (const SegmentPtr& segment : impl_->segments_of(tags)) {
        const std::lock_guard segment_lock(segment->mutex);
        if (segment->where == TagState::resident) {
            freed += segment->booked_bytes();
            segment->drop_backups(*impl_->store);
        }
    }
    return freed;
}

PoolStats Pool::stats() {
    PoolStats stats{.driver = std::string{impl_->driver->name()},
                    .version = impl_->driver->version(),
                    .uuid = impl_->driver->uuid(),
                    .device = impl_->device,
                    .memory = impl_->driver->memory(),
                    .mapped_bytes = 0,
                    .tags = {},
                    .store = impl_->store->stats(),
                    .staging = impl_->stager.stats(),
                    .counters = {},
                    .last = {}};
    for (const auto& [tag, state] : impl_->table.tags()) {
        stats.tags[tag].state = state;
    }
    for (const SegmentPtr& segment : impl_->table.segments()) {
        const std::lock_guard lock(segment->mutex);
        TagStats& tag = stats.tags[segment->tag()];
        ++tag.segments;
        tag.bytes += segment->bytes();
        tag.mapped_bytes += segment->held_bytes();
        tag.backup_bytes += segment->backup_bytes();
        tag.kept_bytes +=
            tag.state == TagState::discarded && segment->where == TagState::offloaded ? segment->bytes() : 0;
        stats.mapped_bytes += segment->held_bytes();
    }
    const std::lock_guard lock(impl_->books);
    for (const SegmentPtr& segment : impl_->orphans) {
        stats.mapped_bytes += segment->held_bytes();
    }
    stats.counters = impl_->counters;
    stats.last = impl_->last;
    return stats;
}

Driver& Pool::driver() noexcept { return *impl_->driver; }

std::size_t Pool::size_of(Address address) { return impl_->table.find(address)->bytes(); }

}  // namespace dormouse
