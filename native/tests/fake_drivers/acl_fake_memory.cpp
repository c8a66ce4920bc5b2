// Device memory: reservations, physical memory, mappings.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>

#include "acl_fake.hpp"

namespace fake::acl {
namespace {

// The property struct as its bytes must lie, read without the driver's own declaration of it.
struct Properties {
    explicit Properties(const void* bytes) { std::memcpy(words, bytes, sizeof(words)); }
    std::int32_t pages() const { return words[2]; }
    std::int32_t device() const { return words[3]; }
    bool right() const {
        return words[0] == 0                                            // no handle to share
               && words[1] == 0                                         // pinned
               && (pages() == huge_pages || pages() == normal_pages)    //
               && device() >= 0 && device() < devices && words[4] == 1  // of a device
               && words[6] == 0 && words[7] == 0;                       // reserved
    }
    std::int32_t words[8];
};

// The entry of `ranges` whose bytes hold `address`, or the end.
template <typename Ranges>
auto holding(Ranges& ranges, Number address) {
    auto found = ranges.upper_bound(address);
    if (found == ranges.begin()) return ranges.end();
    --found;
    return address < found->first + found->second.bytes ? found : ranges.end();
}

bool overlaps_mapping(Number address, std::size_t bytes) {
    const auto next = model().mappings.lower_bound(address);
    if (next != model().mappings.end() && next->first < address + bytes) return true;
    return holding(model().mappings, address) != model().mappings.end();
}

// All physical memory: pieces are cut from its end and punched out again, so it never grows in RAM.
struct File {
    int number = -1;
    off_t end = 0;
} file;

// Where a new piece full of poison begins, or -1.
off_t poisoned_piece(std::size_t bytes) {
    if (file.number < 0) file.number = memfd_create("fake-device-memory", MFD_CLOEXEC);
    const off_t begin = file.end, end = begin + static_cast<off_t>(bytes);
    if (file.number < 0 || ftruncate(file.number, end) != 0) return -1;
    void* all = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file.number, begin);
    if (all == MAP_FAILED) return -1;
    std::memset(all, FAKE_POISON, bytes);
    munmap(all, bytes);
    file.end = end;
    return begin;
}

void drop_if_unused(std::map<Number, Physical>::iterator found) {
    const Physical& physical = found->second;
    if (!physical.freed || physical.mappings > 0) return;
    fallocate(file.number, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, physical.offset,
              static_cast<off_t>(physical.bytes));
    give(physical.bytes);
    model().handles.erase(found);
}

}  // namespace

bool mapped(Number address, std::size_t bytes) {
    const Number end = address + bytes;
    while (address < end) {
        const auto found = holding(model().mappings, address);
        if (found == model().mappings.end()) return false;
        address = found->first + found->second.bytes;
    }
    return true;
}

void forget_memory() {
    for (const auto& [address, reservation] : model().reservations)
        munmap(pointer(reservation.raw), reservation.raw_bytes);
    if (file.number >= 0) close(file.number);
    file = {};
    model().reservations.clear();
    model().handles.clear();
    model().mappings.clear();
}

}  // namespace fake::acl

using namespace fake::acl;

FAKE_EXPORT int aclrtGetMemInfo(int attribute, std::size_t* free, std::size_t* total) {
    const Call call("aclrtGetMemInfo");
    if (call.code != 0) return call.code;
    if (attribute != 1) return fake::violate(invalid_memory_type, "aclrtGetMemInfo: attribute %d", attribute);
    const fake::Memory memory = fake::memory();
    *free = memory.free;
    *total = memory.total;
    return 0;
}

FAKE_EXPORT int aclrtMemGetAllocationGranularity(const void* properties, int option, std::size_t* bytes) {
    const Call call("aclrtMemGetAllocationGranularity");
    if (call.code != 0) return call.code;
    if (!Properties(properties).right() || option < 0 || option > 1)
        return fake::violate(invalid_parameter, "aclrtMemGetAllocationGranularity: wrong properties or option");
    *bytes = fake::granularity();
    return 0;
}

FAKE_EXPORT int aclrtReserveMemAddress(void** address, std::size_t bytes, std::size_t alignment, void* expected,
                                       std::uint64_t flags) {
    const Call call("aclrtReserveMemAddress");
    if (call.code != 0) return call.code;
    if (bytes == 0 || bytes % fake::granularity() != 0)
        return fake::violate(invalid_parameter, "aclrtReserveMemAddress: %zu bytes", bytes);
    if (alignment != 0 || expected != nullptr || flags > 1)
        return fake::violate(invalid_parameter, "aclrtReserveMemAddress: wrong alignment, place or flags");
    const std::size_t raw_bytes = bytes + fake::granularity();
    void* raw = mmap(nullptr, raw_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (raw == MAP_FAILED) return no_memory;
    const Number start = (number(raw) + fake::granularity() - 1) / fake::granularity() * fake::granularity();
    model().reservations[start] = {bytes, number(raw), raw_bytes, flags};
    fake::live("reservations", 1);
    *address = pointer(start);
    return 0;
}

FAKE_EXPORT int aclrtReleaseMemAddress(void* address) {
    const Call call("aclrtReleaseMemAddress");
    if (call.code != 0) return call.code;
    const auto found = model().reservations.find(number(address));
    if (found == model().reservations.end())
        return fake::violate(invalid_parameter, "aclrtReleaseMemAddress: %p is not a reservation's start", address);
    if (overlaps_mapping(found->first, found->second.bytes))
        return fake::violate(invalid_parameter, "aclrtReleaseMemAddress: memory is still mapped in %p", address);
    munmap(pointer(found->second.raw), found->second.raw_bytes);
    model().reservations.erase(found);
    fake::live("reservations", -1);
    return 0;
}

FAKE_EXPORT int aclrtMallocPhysical(void** handle, std::size_t bytes, const void* properties, std::uint64_t flags) {
    const Call call("aclrtMallocPhysical");
    if (call.code != 0) return call.code;
    const Properties wanted(properties);
    if (!wanted.right() || flags != 0)
        return fake::violate(invalid_parameter, "aclrtMallocPhysical: wrong properties or flags");
    if (bytes == 0 || bytes % fake::granularity() != 0)
        return fake::violate(invalid_parameter, "aclrtMallocPhysical: %zu bytes", bytes);
    if (!fake::take(bytes)) return no_memory;
    const std::int64_t offset = poisoned_piece(bytes);
    if (offset < 0) {
        fake::give(bytes);
        return no_memory;
    }
    const Number name = new_name();
    model().handles[name] = {bytes, wanted.device(), wanted.pages(), offset};
    fake::live("handles", 1);
    if (wanted.pages() == normal_pages) fake::live("normal", 1);  // an extra count, for tests that ask which pages
    *handle = pointer(name);
    return 0;
}

FAKE_EXPORT int aclrtFreePhysical(void* handle) {
    const Call call("aclrtFreePhysical");
    if (call.code != 0) return call.code;
    const auto found = model().handles.find(number(handle));
    if (found == model().handles.end() || found->second.freed)
        return fake::violate(invalid_handle, "aclrtFreePhysical: no such handle, or freed twice");
    found->second.freed = true;
    fake::live("handles", -1);
    if (found->second.pages == normal_pages) fake::live("normal", -1);
    drop_if_unused(found);
    return 0;
}

FAKE_EXPORT int aclrtMapMem(void* address, std::size_t bytes, std::size_t offset, void* handle, std::uint64_t flags) {
    const Call call("aclrtMapMem");
    if (call.code != 0) return call.code;
    const Number start = number(address);
    const auto found = model().handles.find(number(handle));
    if (found == model().handles.end() || found->second.freed)
        return fake::violate(invalid_handle, "aclrtMapMem: no such handle");
    Physical& physical = found->second;
    if (offset != 0 || flags != 0) return fake::violate(invalid_parameter, "aclrtMapMem: offset and flags must be 0");
    if (bytes != physical.bytes)
        return fake::violate(invalid_parameter, "aclrtMapMem: %zu bytes of a memory of %zu", bytes, physical.bytes);
    const auto room = holding(model().reservations, start);
    if (room == model().reservations.end() || start + bytes > room->first + room->second.bytes)
        return fake::violate(invalid_parameter, "aclrtMapMem: %p is not within one reservation", address);
    if (start % fake::granularity() != 0) return fake::violate(unaligned, "aclrtMapMem: %p is not aligned", address);
    if (overlaps_mapping(start, bytes)) return fake::violate(invalid_parameter, "aclrtMapMem: %p is mapped", address);
    if (physical.device != call.device)
        return fake::violate(wrong_context, "aclrtMapMem: memory of device %d, context of device %d", physical.device,
                             call.device);
    if (room->second.flags == 1 && physical.pages != huge_pages)
        return fake::violate(invalid_memory_type, "aclrtMapMem: normal pages in a reservation for huge ones");
    if (mmap(address, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file.number, physical.offset) ==
        MAP_FAILED)
        return no_memory;
    ++physical.mappings;
    model().mappings[start] = {bytes, found->first};
    fake::live("mappings", 1);
    return 0;
}

FAKE_EXPORT int aclrtUnmapMem(void* address) {
    const Call call("aclrtUnmapMem");
    if (call.code != 0) return call.code;
    const auto found = model().mappings.find(number(address));
    if (found == model().mappings.end())
        return fake::violate(invalid_parameter, "aclrtUnmapMem: no mapping starts at %p", address);
    const Mapping mapping = found->second;
    if (in_flight(found->first, mapping.bytes))
        return fake::violate(invalid_parameter, "aclrtUnmapMem: a copy of %p is under way", address);
    constexpr int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED;
    if (mmap(address, mapping.bytes, PROT_NONE, flags, -1, 0) == MAP_FAILED) return no_memory;
    model().mappings.erase(found);
    fake::live("mappings", -1);
    const auto physical = model().handles.find(mapping.handle);
    --physical->second.mappings;
    drop_if_unused(physical);
    return 0;
}
