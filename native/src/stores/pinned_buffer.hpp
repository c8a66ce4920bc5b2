// A small piece of pinned host memory, by whichever way the device offers: pages of ours that the driver pins, or the
// driver's own allocation.
#pragma once

#include <cstddef>

#include "dormouse/driver.hpp"

namespace dormouse {

class PinnedBuffer {
   public:
    // Throws what the last way answered when neither works. `driver` must outlive the buffer.
    PinnedBuffer(Driver& driver, std::size_t bytes);
    ~PinnedBuffer();
    PinnedBuffer(const PinnedBuffer&) = delete;
    PinnedBuffer& operator=(const PinnedBuffer&) = delete;

    std::byte* data() const noexcept { return data_; }
    std::size_t bytes() const noexcept { return bytes_; }

   private:
    bool pin_own_pages() noexcept;

    Driver& driver_;
    const std::size_t bytes_;
    std::byte* data_ = nullptr;
    bool own_pages_ = false;
};

}  // namespace dormouse
