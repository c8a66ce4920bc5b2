// The tagged memory pool of one device: what an engine allocates, and what sleeps and wakes.
//
// Every allocation is a segment with a tag. A tag is resident, offloaded (content in the backup store), discarded
// (content dropped) or in transition. Addresses never change. All calls are thread-safe; sleep, wake, discard and
// stage exclude one another; malloc and free never wait for a transition of another tag.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "dormouse/backup.hpp"
#include "dormouse/device_memory.hpp"
#include "dormouse/driver.hpp"
#include "dormouse/tag.hpp"

namespace dormouse {

enum class Retain {
    keep,     // a backup outlives the wake, so that the next sleep need not copy
    release,  // a backup is given back as soon as its tag is awake
};

struct PoolOptions {
    StoreOptions store;
    Retain retain = Retain::keep;
    // Largest physical allocation; bigger segments are made of several.
    std::size_t chunk_bytes = 512u << 20;
    // A chunk that changes again and again is compared and copied in parts of this size, a multiple of a page.
    std::size_t grain_bytes = 4u << 20;
    // A discard keeps segments up to this size (small runtime tensors that live under kv_cache); 0 keeps none.
    std::size_t keep_up_to = 64u << 20;
    // A wake that finds no room tries again this often, this many seconds apart.
    unsigned memory_retries = 3;
    double retry_seconds = 0.05;
    // The driver does its books on released memory so long after the last release or wake (Driver::collects_late),
    // which is longer than a device clears; 0: the next wake does them. An hour at most.
    double collect_seconds = 0.4;
};

struct StageOptions {
    double bytes_per_second = 8.0 * (1u << 30);  // 0: as fast as the link goes
    std::size_t piece_bytes = 8u << 20;
};

// One finished transition: seconds in all and by phase, in the order in which the phases began.
struct Transition {
    std::string kind;  // "sleep", "wake", "discard"
    double seconds = 0;
    std::vector<std::pair<std::string, double>> phases;
    std::size_t copied_bytes = 0;
    std::size_t pulled_bytes = 0;      // of a wake's: copied by the device's processors, not by its copy engine
    std::size_t clean_bytes = 0;       // not copied: a digest agreed with the backup
    std::size_t mismatched_bytes = 0;  // of chunks whose backup was thought valid and was not
    std::string error;                 // empty when it worked
};

struct TagStats {
    TagState state = TagState::resident;
    std::size_t segments = 0;
    std::size_t bytes = 0;         // of address space in use
    std::size_t mapped_bytes = 0;  // of device memory held
    std::size_t backup_bytes = 0;  // of valid backups
    std::size_t kept_bytes = 0;    // kept through a discard
};

struct StageStats {
    bool active = false;
    std::size_t done_bytes = 0;
    std::size_t total_bytes = 0;
    std::string error;  // why the last staging ended early; empty otherwise
};

struct Counters {
    std::uint64_t sleeps = 0, wakes = 0, discards = 0, stagings = 0;
    std::uint64_t digest_mismatches = 0;  // chunks
    std::uint64_t memory_retries = 0;
    std::uint64_t rollbacks = 0;
    std::uint64_t failed_releases = 0;  // chunks that a sleep could not give back, so far
};

struct PoolStats {
    std::string driver, version, uuid;
    int device = 0;
    MemoryInfo memory;             // of the whole device, measured
    std::size_t mapped_bytes = 0;  // what this pool holds of it
    std::map<std::string, TagStats> tags;
    StoreStats store;
    StageStats staging;
    Counters counters;
    std::optional<Transition> last;
};

// Makes what stands at the two seams; a pool calls each once, with its driver. One that is left out means the driver's
// own memory, and make_store(options.store).
struct Seams {
    std::function<std::unique_ptr<DeviceMemory>(Driver&)> memory;
    std::function<std::unique_ptr<BackupStore>(Driver&)> store;
};

class Pool {
   public:
    Pool(std::unique_ptr<Driver> driver, int device, PoolOptions options, const Seams& seams = {});
    ~Pool();
    Pool(const Pool&) = delete;
    Pool& operator=(const Pool&) = delete;

    // At least `bytes` of device memory under `tag`, resident. Throws out_of_memory, driver_error, or illegal_state
    // when the tag sleeps.
    Address malloc(std::size_t bytes, const std::string& tag);
    // Waits for the device only if the segment is resident; asleep, it drops the backup. Throws invalid_argument for
    // an address that malloc did not return.
    void free(Address address);

    // Offloads the tags of `offload`, discards all others. A tag that sleeps already stays as it is, unless it must go
    // deeper. Returns when the memory is free. On an error the pool is as before, or fully asleep (then the error
    // says that bytes could not be given back, and a second call tries again).
    Transition sleep(const std::vector<std::string>& offload);
    // Level 1 offloads all but kv_cache and workspace, level 2 keeps only runtime and cudagraph.
    Transition sleep(int level);
    // Brings tags back (all that sleep, when empty). Content of discarded ones is undefined. On an error every one of
    // them sleeps as before and its backup is intact.
    Transition wake(const std::vector<std::string>& tags);
    // Drops device memory and backup of these tags, whether resident or offloaded; small segments are kept.
    Transition discard(const std::vector<std::string>& tags);

    // Copies what a level-1 sleep keeps to the backup in the background. Returns at once; a transition stops
    // it. wait_staged blocks until it is done or stopped, stop_staging returns when it no longer runs.
    void stage(const StageOptions& options);
    void wait_staged();
    void stop_staging();

    // The engine has written (or is about to write) tags: their backups are no longer trusted. Empty: all.
    void mark_dirty(const std::vector<std::string>& tags);
    // Gives backups of resident tags back to the host (all, when empty); returns the bytes that were freed.
    std::size_t release_backups(const std::vector<std::string>& tags);

    PoolStats stats();
    Driver& driver() noexcept;
    // Usable bytes of the segment at `address` (what malloc rounded up to).
    std::size_t size_of(Address address);

   private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace dormouse
