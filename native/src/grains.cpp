#include "grains.hpp"

#include <algorithm>

namespace dormouse {

std::vector<Range> grains_of(Range chunk, std::size_t grain_bytes) {
    std::vector<Range> grains;
    for (std::size_t offset = 0; offset < chunk.bytes; offset += grain_bytes) {
        grains.push_back({chunk.address + offset, std::min(grain_bytes, chunk.bytes - offset)});
    }
    return grains;
}

std::vector<Stretch> to_copy(std::size_t chunk_bytes, std::size_t grain_bytes, std::span<const std::uint64_t> before,
                             std::span<const std::uint64_t> now) {
    if (now.empty() || before.size() != now.size()) {
        return {{0, chunk_bytes}};
    }
    std::vector<Stretch> stretches;
    for (std::size_t i = 0; i < now.size(); ++i) {
        if (before[i] == now[i]) {
            continue;
        }
        const std::size_t offset = i * grain_bytes;
        const std::size_t bytes = std::min(grain_bytes, chunk_bytes - offset);
        if (!stretches.empty() && stretches.back().offset + stretches.back().bytes == offset) {
            stretches.back().bytes += bytes;
        } else {
            stretches.push_back({offset, bytes});
        }
    }
    return stretches;
}

}  // namespace dormouse
