// Grains: the parts in which a chunk is compared once its content turned out to change behind the pool's back.
//
// Most chunks never change, and one digest of each is all that a sleep needs to know. A few change with every request,
// in a few places: vLLM counts the tokens of each sequence for penalties in one tensor of 594 MiB, of which a request
// writes some rows. So a sleep that finds a chunk changed digests its grains too, and keeps these digests with the
// backup: the next such sleep copies the grains that differ, not the chunk.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "dormouse/driver.hpp"

namespace dormouse {

// A part of a chunk, from its beginning.
struct Stretch {
    std::size_t offset;
    std::size_t bytes;
    bool operator==(const Stretch&) const = default;
};

// `chunk` in ranges of `grain_bytes`, the last one what is left.
std::vector<Range> grains_of(Range chunk, std::size_t grain_bytes);

// What a new backup lacks: where `now` differs from `before`, neighbours as one; everything where either is not known
// (empty).
std::vector<Stretch> to_copy(std::size_t chunk_bytes, std::size_t grain_bytes, std::span<const std::uint64_t> before,
                             std::span<const std::uint64_t> now);

}  // namespace dormouse
