// Moves unpinned memory through pinned buffers: what a device does with pageable memory by itself, but with many
// threads and at the link's speed.
//
// A lane is one thread with two buffers, each with a stream of its own: while the device fills or empties one, the
// thread copies the other.
#pragma once

#include <array>
#include <cstddef>
#include <optional>

#include "dormouse/driver.hpp"
#include "owned_stream.hpp"
#include "stores/pinned_buffer.hpp"
#include "stores/shelf.hpp"
#include "stores/worker.hpp"

namespace dormouse {

enum class Direction { offload, restore };

// Bytes on their way between device and host.
struct Part {
    Address device = 0;
    std::byte* host = nullptr;
    std::size_t bytes = 0;
};

class CopyStream {
   public:
    CopyStream(Driver& driver, Priority priority) : driver_(driver), stream_(driver, priority) {}

    // Queues `part` between device and `buffer`.
    void copy(Direction direction, std::byte* buffer, const Part& part);
    // Queues `part`, to the device, from its own pinned host memory, for the device's processors.
    void pull(const Part& part) { driver_.pull(part.device, part.host, part.bytes, stream_.get()); }
    // Wants a driver that can_pull().
    bool idle() { return driver_.idle(stream_.get()); }
    void synchronize() { driver_.synchronize(stream_.get()); }
    // For the way out of an error, which says more than this one would.
    void synchronize_quietly() noexcept;

   private:
    Driver& driver_;
    OwnedStream stream_;
};

struct BufferPair {
    BufferPair(Driver& driver, std::size_t bytes) : first(driver, bytes), second(driver, bytes) {}
    PinnedBuffer first;
    PinnedBuffer second;
};

class Lane {
   public:
    Lane(Driver& driver, Direction direction, Shelf<BufferPair>::Borrowed buffers, Shelf<CopyStream>& streams);
    // Waits for the device, so that nobody else gets a buffer that it still uses.
    ~Lane();
    Lane(const Lane&) = delete;
    Lane& operator=(const Lane&) = delete;

    // Takes a part no larger than a buffer. Throws what went wrong with an earlier one.
    void carry(const Part& part);
    // Returns when all has arrived, or throws what went wrong.
    void finish();
    void drop() noexcept { worker_->drop(); }

   private:
    struct Side {
        std::byte* buffer;
        Shelf<CopyStream>::Borrowed stream;
        std::optional<Part> under_way;
    };
    void step(const Part& part);
    void settle(Side& side);

    Driver& driver_;
    const Direction direction_;
    Shelf<BufferPair>::Borrowed buffers_;
    std::array<Side, 2> sides_;
    std::size_t next_ = 0;
    std::optional<Worker> worker_;
};

}  // namespace dormouse
