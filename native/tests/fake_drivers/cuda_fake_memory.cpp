// Memory that needs no mapping: cuMemAlloc on the device, and pinned memory of the host.
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "cuda_fake_device.hpp"

using namespace fake;

namespace {

constexpr std::size_t device_block = 512;  // what cuMemAlloc rounds to
constexpr unsigned portable = 1, device_map = 2, write_combined = 4, read_only = 8;

std::size_t round_up(std::size_t bytes, std::size_t unit) {
    return (bytes + unit - 1) / unit * unit;
}

std::size_t page() {
    return static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
}

// The whole pages that a range of host memory touches.
std::pair<void*, std::size_t> pages(std::uint64_t address, std::size_t bytes) {
    const std::uint64_t start = address / page() * page();
    return {reinterpret_cast<void*>(start), round_up(address + bytes - start, page())};
}

// Whether anything at all is mapped there.
bool is_memory(std::uint64_t address, std::size_t bytes) {
    const auto [start, size] = pages(address, bytes);
    return msync(start, size, MS_ASYNC) == 0;
}

// As pinning does: brings every page in. False where there is no memory, or none that may be written.
bool populate(std::uint64_t address, std::size_t bytes, bool writable) {
    const auto [start, size] = pages(address, bytes);
    if (madvise(start, size, writable ? MADV_POPULATE_WRITE : MADV_POPULATE_READ) == 0) return true;
    return errno == EINVAL && is_memory(address, bytes);  // a kernel that can't
}

// The host range that starts at `address` and came from there (alloc or register).
auto find_host(const void* address, bool ours) {
    const auto found = device().host.find(reinterpret_cast<std::uint64_t>(address));
    return found != device().host.end() && found->second.ours == ours ? found : device().host.end();
}

}  // namespace

FAKE_EXPORT Result cuMemAlloc_v2(DevicePointer* address, std::size_t bytes) {
    FAKE_BEGIN(context);
    if (address == nullptr || bytes == 0) return violate(invalid_value, "cuMemAlloc: %zu bytes", bytes);
    const std::size_t taken = round_up(bytes, device_block);
    if (taken < bytes || !take(taken)) return out_of_memory;
    const std::size_t held = round_up(taken, page());
    const std::lock_guard lock(device().mutex);
    const auto offset = device().storage.create(held);
    const std::uint64_t place = offset ? reserve_space(held, page()) : 0;
    if (place == 0 || !device().storage.show(place, held, *offset) || !protect(place, held, access_write)) {
        if (place != 0) release_space(place, held);
        if (offset) device().storage.destroy(*offset, held);
        give(taken);
        return operating_system;
    }
    device().allocations.emplace(place, Allocation{taken, held, *offset});
    live("allocations", 1);
    *address = place;
    return success;
}

FAKE_EXPORT Result cuMemFree_v2(DevicePointer address) {
    FAKE_BEGIN(context);
    const std::lock_guard lock(device().mutex);
    const auto found = device().allocations.find(address);
    if (found == device().allocations.end()) return violate(invalid_value, "cuMemFree: %#lx is no allocation", address);
    const Allocation allocation = found->second;
    if (device().busy(address, allocation.bytes))
        return violate(illegal_address, "cuMemFree: queued work uses %#lx", address);
    release_space(address, allocation.held);
    device().storage.destroy(allocation.offset, allocation.held);
    give(allocation.bytes);
    device().allocations.erase(found);
    live("allocations", -1);
    return success;
}

FAKE_EXPORT Result cuMemHostAlloc(void** address, std::size_t bytes, unsigned flags) {
    FAKE_BEGIN(context);
    if (address == nullptr || bytes == 0 || (flags & ~(portable | device_map | write_combined)) != 0)
        return violate(invalid_value, "cuMemHostAlloc: %zu bytes, flags %#x", bytes, flags);
    const std::size_t held = round_up(bytes, page());
    void* const place = mmap(nullptr, held, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (held < bytes || place == MAP_FAILED) return out_of_memory;
    std::memset(place, FAKE_POISON, held);
    const std::lock_guard lock(device().mutex);
    device().host.emplace(reinterpret_cast<std::uint64_t>(place), HostRange{held, true, false});
    live("host", 1);
    *address = place;
    return success;
}

FAKE_EXPORT Result cuMemFreeHost(void* address) {
    FAKE_BEGIN(context);
    const std::lock_guard lock(device().mutex);
    const auto found = find_host(address, true);
    if (found == device().host.end())
        return violate(invalid_value, "cuMemFreeHost: %p did not come from cuMemHostAlloc", address);
    if (device().busy(found->first, found->second.bytes))
        return violate(illegal_address, "cuMemFreeHost: queued work uses %p", address);
    munmap(address, found->second.bytes);
    device().host.erase(found);
    live("host", -1);
    return success;
}

FAKE_EXPORT Result cuMemHostRegister_v2(void* address, std::size_t bytes, unsigned flags) {
    FAKE_BEGIN(context);
    const auto start = reinterpret_cast<std::uint64_t>(address);
    if (start == 0 || bytes == 0 || start + bytes < start || (flags & ~(portable | device_map | read_only)) != 0)
        return violate(invalid_value, "cuMemHostRegister: %p + %#zx, flags %#x", address, bytes, flags);
    {
        const std::lock_guard lock(device().mutex);
        for (const auto& [other, range] : device().host)
            if (Span{other, range.bytes}.overlaps(start, bytes))
                return violate(already_registered, "cuMemHostRegister: %p + %#zx is pinned already", address, bytes);
        device().host.emplace(start, HostRange{bytes, false, (flags & read_only) != 0});
    }
    // Without the lock, as it may take long; the entry keeps others off the range meanwhile.
    const bool populated = populate(start, bytes, (flags & read_only) == 0);
    const std::lock_guard lock(device().mutex);
    if (!populated) {
        device().host.erase(start);
        return violate(invalid_value, "cuMemHostRegister: %p + %#zx is not memory of this process", address, bytes);
    }
    live("pinned", 1);
    return success;
}

FAKE_EXPORT Result cuMemHostUnregister(void* address) {
    FAKE_BEGIN(context);
    const std::lock_guard lock(device().mutex);
    const auto found = find_host(address, false);
    if (found == device().host.end())
        return violate(not_registered, "cuMemHostUnregister: no registered range starts at %p", address);
    if (device().busy(found->first, found->second.bytes))
        return violate(illegal_address, "cuMemHostUnregister: queued work uses %p", address);
    if (!is_memory(found->first, found->second.bytes))
        return violate(invalid_value, "cuMemHostUnregister: the memory at %p was unmapped while pinned", address);
    device().host.erase(found);
    live("pinned", -1);
    return success;
}
