// Seam: where a backup lives and how it is coded.
//
// A store books room (reserve), then moves bytes through transfers. The sleep and wake pipelines hand it pieces of
// device memory and never learn whether they end in pinned RAM, go through a ring, get compressed or shared.
//
// Nothing is lost by a failed reserve: it comes before the first byte moves. A transfer that fails leaves the device
// as it was (offload) or the backup as it was (restore).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "dormouse/driver.hpp"

namespace dormouse {

using Slot = std::uint64_t;  // a booked place in a store; 0 is none
inline constexpr Slot no_slot = 0;

// `bytes` of device memory at `device`, and the place `offset` bytes into `slot` that belongs to them.
struct Piece {
    Address device = 0;
    std::size_t bytes = 0;
    Slot slot = no_slot;
    std::size_t offset = 0;
};

// A run of pieces in one direction. add() may block for back-pressure; finish() returns when every byte has arrived.
// hand_over() returns when nothing waits for its turn any more and all is the device's to do: for whoever has other
// work before finish(). All throw what went wrong. Destroying a transfer that was not finished waits for what is under
// way and drops the rest.
class Transfer {
   public:
    virtual ~Transfer() = default;
    virtual void add(const Piece& piece) = 0;
    virtual void hand_over() {}
    virtual void finish() = 0;
    // Bytes that the device's own processors copied (Driver::pull), so far.
    virtual std::size_t pulled_bytes() const noexcept { return 0; }
};

struct StoreStats {
    std::string kind;           // "registered" or "ring"
    std::string reason;         // why this kind
    std::size_t reserved = 0;   // bytes booked
    std::size_t committed = 0;  // bytes of RAM held
    std::size_t pinned = 0;     // of these, and of buffers, pinned
    bool pulls = false;         // a restore may be pulled while the device clears memory
};

class BackupStore {
   public:
    virtual ~BackupStore() = default;
    // Books all of `sizes` or nothing: slots in the same order. Throws host_out_of_memory with what is missing.
    virtual std::vector<Slot> reserve(std::span<const std::size_t> sizes) = 0;
    // Gives a slot back. Unpinning takes the driver a while, so the memory itself may follow in the background: drain()
    // waits for it, and so does the next reserve().
    virtual void release(Slot slot) noexcept = 0;
    virtual void drain() noexcept = 0;
    // Backs a slot with memory ahead of its first use (touched, pinned), so that the offload needs only to copy. Told
    // to stop, it returns soon and keeps what it has.
    virtual void prepare(Slot slot, std::stop_token stop = {}) = 0;
    // The digest (digest.hpp) of `bytes` of device memory as a slot holds them from `offset` on, as a part of its
    // whole; both are multiples of 8. No transfer may be writing them.
    virtual std::uint64_t digest(Slot slot, std::size_t offset, std::size_t bytes) = 0;
    virtual std::unique_ptr<Transfer> offload(Priority priority) = 0;
    virtual std::unique_ptr<Transfer> restore() = 0;
    virtual StoreStats stats() = 0;
};

// How a restore that may be pulled goes about it (stores/shared_copy.hpp). Links of 8 GiB/s and more are told from a
// device that clears memory; on a slower one every such copy is late, and both ways always share. Sizes are multiples
// of 16.
struct PullPace {
    std::size_t probe_bytes = 4u << 20;   // each of the first two copies: 0.1 ms at rest
    std::size_t batch_bytes = 64u << 20;  // what the copy engine is given at a time, four times at most
    std::size_t pull_bytes = 128u << 20;  // what the processors are given at a time, twice at most
    double late_seconds = 0.0005;         // one that takes longer has met a device that clears memory
    double round_seconds = 0.1;           // for so long both copy, then it is asked again
    double nap_seconds = 0.0001;          // between two looks while nothing else is to be done
};

struct StoreOptions {
    // "registered": the whole backup pinned. "ring": unpinned, moved through a few pinned buffers. "auto": registered
    // where RLIMIT_MEMLOCK and the driver allow it, else ring.
    std::string kind = "auto";
    unsigned threads = 0;                 // that touch and copy; 0 means three quarters of the cores, 16 at most
    std::size_t ring_buffer = 16u << 20;  // bytes of one pinned buffer; each thread has two
    bool check_host_memory = true;        // refuse what the host's free memory can't hold
    // Restores from pinned memory are pulled by the device's processors too, where it can do that, as long as its copy
    // engine is slow because the device clears memory that was released.
    bool pull = true;
    PullPace pull_pace = {};
};

// `driver` must outlive the store. Throws invalid_argument for an unknown kind, host_out_of_memory when "registered"
// was asked for and RLIMIT_MEMLOCK forbids it.
std::unique_ptr<BackupStore> make_store(Driver& driver, const StoreOptions& options);

}  // namespace dormouse
