// One physical allocation at one place of a segment: it comes and goes whole.
//
// Where the driver's mapping keeps the memory alive, its handle goes as soon as it is usable. A sleep then makes one
// call for each chunk and not two: a fifth less time on an H200. The release in a wake costs nothing that can be
// measured.
//
// bring() and give_back() are ladders of driver calls. Each remembers how far it got, so that after a failure at any
// rung the same call, or its opposite, goes on from there: that is what makes a transition's roll-back and its second
// try the same code as its first.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "dormouse/backup.hpp"
#include "dormouse/device_memory.hpp"
#include "dormouse/driver.hpp"

namespace dormouse {

// The host copy of a chunk. It is trusted only while the engine's generation is the one it was made in *and* the
// device's digest of the bytes is that of the copy. A copy that was made while the engine serves is digested itself: it
// may hold bytes that were there for a moment only. A sleep digests on the device, before it copies: a write that slips
// in between leaves a digest that no longer agrees, and the bytes are copied again.
struct Backup {
    Slot slot = no_slot;
    bool complete = false;                   // every byte has arrived
    bool digested = false;                   // `digest` is known
    std::uint64_t digest = 0;                // of the bytes
    std::uint64_t generation = 0;            // of the segment, before the copy
    std::vector<std::uint64_t> grains = {};  // digests of its parts (grains.hpp); empty: not known
};

class Chunk {
   public:
    Chunk(Address address, std::size_t bytes) : address_(address), bytes_(bytes) {}

    Address address() const noexcept { return address_; }
    std::size_t bytes() const noexcept { return bytes_; }
    bool usable() const noexcept { return step_ == Step::usable; }
    // Device memory is held, whether or not it can be used.
    bool holds_memory() const noexcept { return step_ != Step::none; }

    // Takes memory, maps it and grants access; lets the handle go where the mapping does without. A handle that can't
    // go then is no failure: it goes with the memory.
    void bring(Driver& driver, DeviceMemory& memory);
    // Unmaps, lets the handle go if it is still there, and tells `memory`. The caller has made sure that no work uses
    // it.
    void give_back(Driver& driver, DeviceMemory& memory);

    Backup backup;

   private:
    enum class Step { none, taken, mapped, usable };

    void let_go(DeviceMemory& memory);

    Address address_;
    std::size_t bytes_;
    std::optional<Physical> handle_;
    Step step_ = Step::none;
};

}  // namespace dormouse
