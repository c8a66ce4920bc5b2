#include "dormouse/pool.hpp"

#include <unistd.h>

#include <algorithm>

#include "dormouse/error.hpp"
#include "pool_impl.hpp"

namespace dormouse {

Pool::Pool(std::unique_ptr<Driver> driver, int device, PoolOptions options, const Seams& seams)
    : impl_(std::make_unique<Impl>(std::move(driver), device, std::move(options), seams)) {}

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
    auto segment = std::make_shared<Segment>(*impl_->driver, tag, rounded, impl_->options.chunk_bytes);
    try {
        segment->bring(*impl_->driver, *impl_->memory);
        impl_->table.add(segment);
    } catch (...) {
        impl_->bury(segment, true);
        throw;
    }
    return segment->address();
}

void Pool::free(Address address) {
    impl_->expect_own_process();
    const SegmentPtr segment = impl_->table.take(address);
    {
        // From here on no staging begins a copy of it, so the device is waited for after the last one.
        const std::lock_guard lock(segment->mutex);
        segment->freed = true;
    }
    bool idle = true;
    if (segment->where == TagState::resident) {
        // torch has no deferred reclaim on this path: kernels that were queued may still use the bytes.
        try {
            impl_->driver->synchronize_device();
        } catch (const error&) {
            idle = false;
        }
    } else {
        idle = impl_->strays.gone();
    }
    impl_->bury(segment, idle);
}

Transition Pool::sleep(const std::vector<std::string>& offload) {
    impl_->expect_own_process();
    Table::Wish wish = impl_->everything(TagState::discarded);
    for (const auto& [tag, state] : impl_->only(offload, TagState::offloaded)) {
        wish[tag] = state;
    }
    return impl_->run("sleep", wish, &put_to_sleep, &Counters::sleeps);
}

Transition Pool::sleep(int level) {
    impl_->expect_own_process();
    wanted_at_level("", level);  // an unknown level is refused by an empty pool too
    Table::Wish wish;
    for (const auto& [tag, state] : impl_->table.tags()) {
        wish.emplace(tag, wanted_at_level(tag, level));
    }
    return impl_->run("sleep", wish, &put_to_sleep, &Counters::sleeps);
}

Transition Pool::wake(const std::vector<std::string>& tags) {
    impl_->expect_own_process();
    const Table::Wish wish =
        tags.empty() ? impl_->everything(TagState::resident) : impl_->only(tags, TagState::resident);
    return impl_->run("wake", wish, &bring_back, &Counters::wakes);
}

Transition Pool::discard(const std::vector<std::string>& tags) {
    impl_->expect_own_process();
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
    const std::size_t keep = impl_->options.keep_up_to;
    std::erase_if(segments, [keep](const SegmentPtr& segment) {
        const bool wanted = wanted_at_level(segment->tag(), 1) == TagState::offloaded ||
                            segment->bytes() <= kept_up_to(segment->tag(), keep);
        return segment->where != TagState::resident || !wanted;
    });
    impl_->stager.start(std::move(segments), options);
    const std::lock_guard books(impl_->books);
    ++impl_->counters.stagings;
}

void Pool::wait_staged() {
    impl_->expect_own_process();
    impl_->stager.wait();
}

void Pool::stop_staging() {
    impl_->expect_own_process();
    impl_->stager.stop();
}

void Pool::mark_dirty(const std::vector<std::string>& tags) {
    impl_->expect_own_process();
    for (const SegmentPtr& segment : impl_->segments_of(tags)) {
        ++segment->generation;
    }
}

std::size_t Pool::release_backups(const std::vector<std::string>& tags) {
    impl_->expect_own_process();
    const std::lock_guard lock(impl_->transition);
    impl_->stager.stop();
    impl_->strays.wait();
    std::size_t freed = 0;
    for (const SegmentPtr& segment : impl_->segments_of(tags)) {
        const std::lock_guard segment_lock(segment->mutex);
        if (segment->where == TagState::resident) {
            freed += segment->booked_bytes();
            segment->drop_backups(*impl_->store);
        }
    }
    impl_->store->drain();
    return freed;
}

PoolStats Pool::stats() {
    impl_->expect_own_process();
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

Driver& Pool::driver() noexcept {
    return *impl_->driver;
}

std::size_t Pool::size_of(Address address) {
    impl_->expect_own_process();
    return impl_->table.find(address)->bytes();
}

}  // namespace dormouse
