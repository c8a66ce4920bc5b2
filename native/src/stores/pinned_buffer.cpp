#include "stores/pinned_buffer.hpp"

namespace dormouse {

PinnedBuffer::PinnedBuffer(Driver& driver, std::size_t bytes) : driver_(driver), bytes_(bytes) {
    own_pages_ = driver_.can_pin() && pin_own_pages();
    if (!own_pages_) {
        data_ = static_cast<std::byte*>(driver_.host_alloc(bytes_));
    }
}

bool PinnedBuffer::pin_own_pages() noexcept {
    HostMemory& host = driver_.host();
    try {
        data_ = static_cast<std::byte*>(host.reserve(bytes_));
        host.commit(data_, bytes_);
        driver_.pin(data_, bytes_);
        return true;
    } catch (...) {  // host_alloc is tried next, and says why if that fails too
        if (data_ != nullptr) {
            host.unreserve(data_, bytes_);
        }
        return false;
    }
}

PinnedBuffer::~PinnedBuffer() {
    try {
        if (own_pages_) {
            driver_.unpin(data_, bytes_);
            driver_.host().unreserve(data_, bytes_);
        } else {
            driver_.host_free(data_);
        }
    } catch (...) {  // the driver keeps it: leave the pages where they are
    }
}

}  // namespace dormouse
