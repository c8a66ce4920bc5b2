// What a pool is made of, and how one of its calls runs: lock, stop the staging, move, record.
#pragma once

#include <sys/types.h>

#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "dormouse/pool.hpp"
#include "dormouse/table.hpp"
#include "owned_stream.hpp"
#include "stager.hpp"
#include "transition.hpp"

namespace dormouse {

struct Pool::Impl {
    Impl(std::unique_ptr<Driver> driver, int device, PoolOptions options, const Seams& seams);
    ~Impl();
    Impl(const Impl&) = delete;
    Impl& operator=(const Impl&) = delete;

    // A forked child has the parent's books but none of its device: it must touch neither, not even a lock. Every call
    // of a pool begins with it.
    void expect_own_process() const;

    // Drops memory and backups of a segment that is in the table no more.
    Segment::Leftover drop(Segment& segment) noexcept;
    // The same, and what the device does not take back joins the orphans. Not `idle`: the device could not be waited
    // for and may still use memory and backups, so all of it does.
    void bury(const SegmentPtr& segment, bool idle);
    // Tries again what earlier calls could not give back. Throws where the device can't be waited for.
    Segment::Leftover sweep();

    using Step = void (*)(const Parts&, Table::Move&, Stopwatch&, Account&);
    using Counter = std::uint64_t Counters::*;
    // One transition: moves the tags of `wish` by `step`; counts it, records it, and throws what it threw.
    Transition run(std::string kind, const Table::Wish& wish, Step step, Counter counter);

    // All tags, or `tags` (which must exist), each with the same wish.
    Table::Wish everything(TagState state) const;
    Table::Wish only(const std::vector<std::string>& tags, TagState state) const;
    // The segments of `tags`; all of them when empty.
    std::vector<SegmentPtr> segments_of(const std::vector<std::string>& tags) const;

    std::unique_ptr<Driver> driver;
    int device;
    PoolOptions options;
    std::size_t granularity;
    std::unique_ptr<DeviceMemory> memory;
    std::unique_ptr<BackupStore> store;
    Strays strays;
    OwnedStream stream;
    Parts parts;
    Table table;
    pid_t process;

    std::mutex transition;  // one sleep, wake, discard or start of a staging at a time
    Stager stager;

    std::mutex books;
    Counters counters;
    std::optional<Transition> last;
    std::vector<SegmentPtr> orphans;  // freed, but the device would not take their memory back yet

   private:
    Transition record(std::string kind, Stopwatch& watch, const Account& account, const std::exception_ptr& failure,
                      bool moved, Counter counter);
};

}  // namespace dormouse
