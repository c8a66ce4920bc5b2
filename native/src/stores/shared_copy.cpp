#include "stores/shared_copy.hpp"

#include <algorithm>

namespace dormouse {

namespace {

constexpr double looks_at_a_probe = 16;

void to_engine(CopyStream& stream, const Part& part) {
    stream.copy(Direction::restore, part.host, part);
}

}  // namespace

void SharedCopy::add(const Part& part) {
    waiting_.push_back(part);
    waiting_bytes_ += part.bytes;
    advance();
}

void SharedCopy::advance() {
    if (waiting_.empty()) {
        return;
    }
    if (device_ == Device::unknown && (waiting_bytes_ > 2 * pace_.probe_bytes || whole_)) {
        ask();
    }
    if (device_ == Device::clearing) {
        share();
    }
    if (device_ == Device::at_rest) {
        for (const Part& part : waiting_) {
            rest_.copy(Direction::restore, part.host, part);
        }
        waiting_.clear();
        waiting_bytes_ = 0;
    }
}

void SharedCopy::ask() {
    device_ = prompt() && prompt() ? Device::at_rest : Device::clearing;
    begun_ = clock_.now();
}

// Whether a small copy is done in time; one that is not stays under way.
bool SharedCopy::prompt() {
    Batch& probe = engine_.front();
    const double begin = clock_.now();
    load(probe, pace_.probe_bytes, to_engine);
    while (!probe.stream->idle()) {
        if (clock_.now() - begin > pace_.late_seconds) {
            return false;
        }
        clock_.sleep(pace_.late_seconds / looks_at_a_probe);
    }
    probe.under_way = false;
    return true;
}

void SharedCopy::share() {
    look();
    const bool over = clock_.now() - begun_ > pace_.round_seconds;
    if (!over) {
        fill_engine();
    }
    if (!over || !idle(engine_)) {  // the engine may take long for what it was given
        fill_processors();
    } else if (idle(processors_)) {
        ask();
    }
}

// Learns what has been done since the last look.
void SharedCopy::look() {
    const auto learn = [](Batch& batch) { batch.under_way = batch.under_way && !batch.stream->idle(); };
    std::for_each(engine_.begin(), engine_.end(), learn);
    std::for_each(processors_.begin(), processors_.end(), learn);
}

bool SharedCopy::idle(std::span<const Batch> batches) noexcept {
    return std::none_of(batches.begin(), batches.end(), [](const Batch& batch) { return batch.under_way; });
}

void SharedCopy::fill_engine() {
    for (Batch& batch : engine_) {
        if (!batch.under_way && !waiting_.empty()) {
            load(batch, pace_.batch_bytes, to_engine);
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
