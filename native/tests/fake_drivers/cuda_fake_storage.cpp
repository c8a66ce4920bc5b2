#include "cuda_fake_storage.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

#include "cuda_fake_abi.hpp"
#include "fake_control.h"

namespace fake {
namespace {

void* pointer(std::uint64_t address) {
    return reinterpret_cast<void*>(address);
}

constexpr int empty_space = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;

}  // namespace

std::optional<off_t> Storage::create(std::size_t bytes) {
    if (file_ < 0) file_ = memfd_create("fake device memory", MFD_CLOEXEC);
    const off_t offset = end_;
    const off_t size = static_cast<off_t>(bytes);
    if (file_ < 0 || ftruncate(file_, offset + size) != 0) return std::nullopt;
    static const std::vector<char> poison(1U << 20, static_cast<char>(FAKE_POISON));
    for (off_t done = 0; done < size;) {
        const auto step = std::min(poison.size(), static_cast<std::size_t>(size - done));
        const ssize_t wrote = pwrite(file_, poison.data(), step, offset + done);
        if (wrote <= 0) {
            destroy(offset, bytes);
            return std::nullopt;
        }
        done += wrote;
    }
    end_ += size;
    return offset;
}

void Storage::destroy(off_t offset, std::size_t bytes) {
    fallocate(file_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, static_cast<off_t>(bytes));
}

void Storage::clear() {
    if (file_ >= 0) close(file_);
    file_ = -1;
    end_ = 0;
}

bool Storage::show(std::uint64_t address, std::size_t bytes, off_t offset) {
    return mmap(pointer(address), bytes, PROT_NONE, MAP_SHARED | MAP_FIXED, file_, offset) != MAP_FAILED;
}

std::uint64_t reserve_space(std::size_t bytes, std::size_t alignment) {
    if (bytes + alignment < bytes) return 0;
    void* const raw = mmap(nullptr, bytes + alignment, PROT_NONE, empty_space, -1, 0);
    if (raw == MAP_FAILED) return 0;
    const auto start = reinterpret_cast<std::uint64_t>(raw);
    const std::uint64_t address = (start + alignment - 1) & ~(alignment - 1);
    if (address > start) munmap(raw, address - start);
    const std::uint64_t behind = start + alignment - address;
    if (behind > 0) munmap(pointer(address + bytes), behind);
    return address;
}

void release_space(std::uint64_t address, std::size_t bytes) {
    munmap(pointer(address), bytes);
}

bool hide(std::uint64_t address, std::size_t bytes) {
    return mmap(pointer(address), bytes, PROT_NONE, empty_space | MAP_FIXED, -1, 0) != MAP_FAILED;
}

bool protect(std::uint64_t address, std::size_t bytes, int access) {
    const int flags = access == access_write ? PROT_READ | PROT_WRITE : access == access_read ? PROT_READ : PROT_NONE;
    return mprotect(pointer(address), bytes, flags) == 0;
}

}  // namespace fake
