// How many threads and buffers a transfer gets.
//
// The numbers are those at which copies through a ring and nothing else filled an H200's link: 8 lanes upwards, 14
// nearly so downwards, where copying out of a buffer also writes. A whole wake is slower. Three quarters of the cores
// commit: the thread that pins and the driver's own want the rest, and on 16 cores 12 threads were never slower
// than 16.
#include "stores/equipment.hpp"

#include <algorithm>
#include <thread>

#include "dormouse/error.hpp"

namespace dormouse {

namespace {

constexpr unsigned most_threads = 16;
constexpr unsigned restore_lanes = 8;
constexpr unsigned offload_lanes = 14;

unsigned three_quarters_of_cores() {
    return (3 * std::thread::hardware_concurrency() + 3) / 4;
}

}  // namespace

Equipment::Equipment(Driver& owner, std::size_t ring_buffer_bytes, unsigned wanted)
    : driver(owner),
      ring_buffer(ring_buffer_bytes),
      threads(std::clamp(wanted == 0 ? three_quarters_of_cores() : wanted, 1u, most_threads)),
      normal([this] { return std::make_unique<CopyStream>(driver, Priority::normal); }),
      low([this] { return std::make_unique<CopyStream>(driver, Priority::low); }),
      buffers([this] {
          auto pair = std::make_unique<BufferPair>(driver, ring_buffer);
          buffer_bytes += 2 * ring_buffer;
          return pair;
      }) {}

unsigned Equipment::lanes(Direction direction) const {
    return std::min(threads, direction == Direction::offload ? offload_lanes : restore_lanes);
}

std::vector<Shelf<BufferPair>::Borrowed> Equipment::take_buffers(unsigned lanes) {
    std::vector<Shelf<BufferPair>::Borrowed> taken;
    try {
        while (taken.size() < lanes) {
            taken.push_back(buffers.take());
        }
    } catch (const error&) {
        if (taken.empty() && !driver.copies_pageable()) {
            throw;
        }
    }
    return taken;
}

}  // namespace dormouse
