// One allocation: its place, its chunks, and where its bytes are.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <string>
#include <vector>

#include "dormouse/chunk.hpp"
#include "dormouse/fair_mutex.hpp"
#include "dormouse/region.hpp"
#include "dormouse/tag.hpp"

namespace dormouse {

class Segment {
   public:
    // Reserves `bytes` (a multiple of the granularity) and divides them evenly into chunks of at most `chunk_bytes`.
    Segment(Driver& driver, std::string tag, std::size_t bytes, std::size_t chunk_bytes);

    Address address() const noexcept { return region_.address(); }
    std::size_t bytes() const noexcept { return region_.bytes(); }
    const std::string& tag() const noexcept { return tag_; }

    // Brings every chunk; on a failure gives all back and throws.
    void bring(Driver& driver, DeviceMemory& memory);
    // Gives back what can be; returns how many chunks could not, and what the first of them threw.
    struct Leftover {
        std::size_t chunks = 0;
        std::size_t bytes = 0;
        std::exception_ptr cause;
        void add(const Leftover& other) noexcept;
    };
    Leftover give_back(Driver& driver, DeviceMemory& memory) noexcept;
    void drop_backups(BackupStore& store) noexcept;
    std::size_t held_bytes() const noexcept;
    // Of complete backups; of all room that is booked for this segment.
    std::size_t backup_bytes() const noexcept;
    std::size_t booked_bytes() const noexcept;

    // Guards everything below, and the chunks' memory against a free while a background copy reads it.
    FairMutex mutex;
    std::vector<Chunk> chunks;
    TagState where = TagState::resident;  // never in_transition: that is a tag's
    bool freed = false;
    // Grows when the engine says that it writes.
    std::atomic<std::uint64_t> generation{0};

   private:
    Region region_;
    std::string tag_;
};

}  // namespace dormouse
