#include "stores/shared_copy.hpp"

#include <algorithm>

namespace dormouse {

namespace {

// The probe and what keeps the engine busy until somebody looks.
constexpr std::size_t batches_until_known = 3;

}  // namespace

void SharedCopy::add(const Part& part) {
    waiting_.push_back(part);
    waiting_bytes_ += part.bytes;
    advance();
}

void SharedCopy::advance() {
    look();
    switch (device_) {
        case Device::unknown:
            // A smaller probe could slip through.
            if (probe().under_way || waiting_bytes_ >= pace_.probe_bytes || whole_) {
                fill_engine(batches_until_known);
            }
            break;
        case Device::at_rest:
            for (const Part& part : waiting_) {
                rest_.copy(Direction::restore, part.host, part);
            }
            waiting_.clear();
            break;
        case Device::clearing:
            share();
            break;
    }
}

void SharedCopy::share() {
    const bool over = clock_.now() - begun_ > pace_.round_seconds;
    if (!over) {
        fill_engine(engine_.size());
    }
    if (!over || !idle(engine_)) {  // the engine may take long for what it was given
        fill_processors();
    } else if (idle(processors_)) {
        device_ = Device::unknown;
        fill_engine(batches_until_known);
    }
}

// Learns what has been done since the last look.
void SharedCopy::look() {
    if (device_ == Device::unknown) {
        look_at_probe();
    }
    if (device_ != Device::clearing) {
        return;
    }
    const auto learn = [](Batch& batch) { batch.under_way = batch.under_way && !batch.stream->idle(); };
    std::for_each(engine_.begin(), engine_.end(), learn);
    std::for_each(processors_.begin(), processors_.end(), learn);
}

void SharedCopy::look_at_probe() {
    if (!probe().under_way) {
        return;
    }
    const double now = clock_.now();
    if (now - begun_ > pace_.late_seconds) {  // done or not: nobody looked in time, and sharing costs little
        device_ = Device::clearing;
        begun_ = now;
    } else if (probe().stream->idle()) {
        device_ = Device::at_rest;
    }
}

bool SharedCopy::idle(std::span<const Batch> batches) noexcept {
    return std::none_of(batches.begin(), batches.end(), [](const Batch& batch) { return batch.under_way; });
}

void SharedCopy::fill_engine(std::size_t batches) {
    for (std::size_t i = 0; i < batches && !waiting_.empty(); ++i) {
        if (!engine_[i].under_way) {
            const bool probes = device_ == Device::unknown && i == 0;
            begun_ = probes ? clock_.now() : begun_;
            load(engine_[i], probes ? pace_.probe_bytes : pace_.batch_bytes,
                 [](CopyStream& stream, const Part& part) { stream.copy(Direction::restore, part.host, part); });
        }
    }
}

void SharedCopy::fill_processors() {
    for (Batch& batch : processors_) {
        if (!batch.under_way && !waiting_.empty()) {
            load(batch, pace_.pull_bytes, [this](CopyStream& stream, const Part& part) {
                stream.pull(part);
                pulled_ += part.bytes;
            });
        }
    }
}

template <class Copy>
void SharedCopy::load(Batch& batch, std::size_t room, const Copy& copy) {
    if (!batch.stream) {
        batch.stream = streams_.take();
    }
    batch.under_way = true;  // some of it may be, should the device refuse the rest
    while (room > 0 && !waiting_.empty()) {
        Part& next = waiting_.front();
        const Part part{next.device, next.host, std::min(room, next.bytes)};
        copy(*batch.stream, part);
        room -= part.bytes;
        waiting_bytes_ -= part.bytes;
        next = {next.device + part.bytes, next.host + part.bytes, next.bytes - part.bytes};
        if (next.bytes == 0) {
            waiting_.pop_front();
        }
    }
}

template <class Wait>
void SharedCopy::settle_each(const Wait& wait) {
    const auto settle = [&](Batch& batch) {
        if (batch.under_way) {
            wait(*batch.stream);
            batch.under_way = false;
        }
    };
    std::for_each(engine_.begin(), engine_.end(), settle);
    std::for_each(processors_.begin(), processors_.end(), settle);
}

void SharedCopy::hand_over() {
    whole_ = true;
    for (advance(); !waiting_.empty(); advance()) {
        clock_.sleep(pace_.nap_seconds);
    }
    whole_ = false;
}

void SharedCopy::finish() {
    hand_over();
    settle_each([](CopyStream& stream) { stream.synchronize(); });
}

void SharedCopy::drop() noexcept {
    waiting_.clear();
    settle_each([](CopyStream& stream) { stream.synchronize_quietly(); });
}

}  // namespace dormouse
