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
            fill_engine(engine_.size());
            if (slow_) {
                fill_processors();
            }
            break;
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
    const double now = clock_.now();
    bool quick = false;
    bool slow = false;
    for (Batch& batch : engine_) {
        if (batch.under_way) {
            const bool in_time = now - batch.since <= pace_.slow_seconds;
            batch.under_way = !batch.stream->idle();
            quick = quick || (in_time && !batch.under_way);
            slow = slow || !in_time;
        }
    }
    slow_ = !quick && (slow || slow_);
    for (Batch& batch : processors_) {
        batch.under_way = batch.under_way && !batch.stream->idle();
    }
}

void SharedCopy::look_at_probe() {
    if (!probe().under_way) {
        return;
    }
    const bool late = clock_.now() - probe().since > pace_.late_seconds;
    const bool done = probe().stream->idle();
    if (late) {  // one that is done now may have been in time, for all we know: sharing finds out
        device_ = Device::clearing;
        slow_ = !done;
    } else if (done) {
        device_ = Device::at_rest;
    }
}

void SharedCopy::fill_engine(std::size_t batches) {
    for (std::size_t i = 0; i < batches && !waiting_.empty(); ++i) {
        if (!engine_[i].under_way) {
            const bool probes = device_ == Device::unknown && i == 0;
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
    batch.since = clock_.now();
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

void SharedCopy::finish() {
    whole_ = true;
    for (advance(); !waiting_.empty(); advance()) {
        clock_.sleep(pace_.nap_seconds);
    }
    settle_each([](CopyStream& stream) { stream.synchronize(); });
}

void SharedCopy::drop() noexcept {
    waiting_.clear();
    settle_each([](CopyStream& stream) { stream.synchronize_quietly(); });
}

}  // namespace dormouse
