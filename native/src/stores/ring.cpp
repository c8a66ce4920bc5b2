#include "stores/ring.hpp"

#include <utility>

namespace dormouse {

void CopyStream::copy(Direction direction, std::byte* buffer, const Part& part) {
    if (direction == Direction::offload) {
        driver_.copy_to_host(buffer, part.device, part.bytes, stream_.get());
    } else {
        driver_.copy_to_device(part.device, buffer, part.bytes, stream_.get());
    }
}

void CopyStream::synchronize_quietly() noexcept {
    try {
        synchronize();
    } catch (...) {
    }
}

Lane::Lane(Driver& driver, Direction direction, Shelf<BufferPair>::Borrowed buffers, Shelf<CopyStream>& streams)
    : driver_(driver),
      direction_(direction),
      buffers_(std::move(buffers)),
      sides_{Side{buffers_->first.data(), streams.take(), {}}, Side{buffers_->second.data(), streams.take(), {}}},
      worker_(std::in_place, driver.clock()) {}

Lane::~Lane() {
    worker_.reset();  // its thread has ended then
    for (Side& side : sides_) {
        side.stream->synchronize_quietly();
    }
}

void Lane::carry(const Part& part) {
    worker_->post([this, part] { step(part); });
}

void Lane::step(const Part& part) {
    Side& side = sides_[next_];
    next_ = 1 - next_;
    settle(side);
    if (direction_ == Direction::restore) {
        driver_.host().copy(side.buffer, part.host, part.bytes);
    }
    side.stream->copy(direction_, side.buffer, part);
    side.under_way = part;
}

void Lane::settle(Side& side) {
    if (!side.under_way) {
        return;
    }
    side.stream->synchronize();
    if (direction_ == Direction::offload) {
        driver_.host().copy(side.under_way->host, side.buffer, side.under_way->bytes);
    }
    side.under_way.reset();
}

void Lane::finish() {
    worker_->post([this] {
        settle(sides_[next_]);  // the older one
        settle(sides_[1 - next_]);
    });
    worker_->finish();
}

}  // namespace dormouse
