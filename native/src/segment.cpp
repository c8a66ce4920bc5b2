#include "dormouse/segment.hpp"

#include <algorithm>

namespace dormouse {

Segment::Segment(Driver& driver, std::string tag, std::size_t bytes, std::size_t chunk_bytes)
    : region_(driver, bytes), tag_(std::move(tag)) {
    const std::size_t granularity = driver.granularity();
    const std::size_t count = (bytes + chunk_bytes - 1) / chunk_bytes;
    const std::size_t even = (bytes / granularity + count - 1) / count * granularity;
    for (std::size_t begin = 0; begin < bytes; begin += even) {
        chunks.emplace_back(region_.address() + begin, std::min(even, bytes - begin));
    }
}

void Segment::bring(Driver& driver, DeviceMemory& memory) {
    try {
        for (Chunk& chunk : chunks) {
            chunk.bring(driver, memory);
        }
    } catch (...) {
        give_back(driver, memory);
        throw;
    }
}

Segment::Leftover Segment::give_back(Driver& driver, DeviceMemory& memory) noexcept {
    Leftover leftover;
    for (Chunk& chunk : chunks) {
        try {
            chunk.give_back(driver, memory);
        } catch (...) {
            leftover.add({1, chunk.bytes(), std::current_exception()});
        }
    }
    return leftover;
}

void Segment::Leftover::add(const Leftover& other) noexcept {
    if (!cause) {
        cause = other.cause;
    }
    chunks += other.chunks;
    bytes += other.bytes;
}

void Segment::drop_backups(BackupStore& store) noexcept {
    for (Chunk& chunk : chunks) {
        if (chunk.backup.slot != no_slot) {
            store.release(chunk.backup.slot);
        }
        chunk.backup = Backup{};
    }
}

std::size_t Segment::held_bytes() const noexcept {
    std::size_t sum = 0;
    for (const Chunk& chunk : chunks) {
        sum += chunk.holds_memory() ? chunk.bytes() : 0;
    }
    return sum;
}

std::size_t Segment::backup_bytes() const noexcept {
    std::size_t sum = 0;
    for (const Chunk& chunk : chunks) {
        sum += chunk.backup.complete ? chunk.bytes() : 0;
    }
    return sum;
}

std::size_t Segment::booked_bytes() const noexcept {
    std::size_t sum = 0;
    for (const Chunk& chunk : chunks) {
        sum += chunk.backup.slot != no_slot ? chunk.bytes() : 0;
    }
    return sum;
}

}  // namespace dormouse
