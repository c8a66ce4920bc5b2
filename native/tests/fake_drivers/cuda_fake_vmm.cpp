// Virtual memory management: address space, physical memory, and the place of one in the other.
#include <algorithm>
#include <bit>
#include <cstring>
#include <iterator>

#include "cuda_fake_device.hpp"

using namespace fake;

namespace {

bool aligned(std::uint64_t value) {
    return value % granularity() == 0;
}

// A range that every call here wants: some bytes, in whole granules.
Result check_range(const char* symbol, std::uint64_t address, std::size_t bytes) {
    if (bytes > 0 && address > 0 && aligned(address) && aligned(bytes) && address + bytes > address) return success;
    return violate(invalid_value, "%s: %#lx + %#zx is not made of whole granules", symbol, address, bytes);
}

Result check_prop(const char* symbol, const Prop* prop) {
    if (prop == nullptr) return violate(invalid_value, "%s: no properties", symbol);
    if (prop->type != type_pinned) return violate(invalid_value, "%s: type %d is not pinned", symbol, prop->type);
    if (prop->location.type != location_device || prop->location.id != 0)
        return violate(invalid_value, "%s: location %d %d is not this device", symbol, prop->location.type,
                       prop->location.id);
    if (prop->handle_types != 0 && prop->handle_types != 1)
        return violate(not_supported, "%s: handle type %d", symbol, prop->handle_types);
    static constexpr std::uint8_t zeros[sizeof prop->reserved] = {};
    if (prop->win32 != nullptr || prop->compression != 0 || prop->rdma > 1 || prop->usage != 0 ||
        std::memcmp(prop->reserved, zeros, sizeof zeros) != 0)
        return violate(invalid_value, "%s: unused properties must be zero", symbol);
    return success;
}

// The mappings that make up a range exactly; empty when the range cuts one or has a hole.
using Mappings = std::map<std::uint64_t, Mapping>;
std::pair<Mappings::iterator, Mappings::iterator> whole_mappings(std::uint64_t address, std::size_t bytes) {
    Mappings& all = device().mappings;
    const auto first = all.find(address);
    auto last = first;
    std::uint64_t end = address;
    while (last != all.end() && last->first == end && end < address + bytes) {
        end += last->second.bytes;
        ++last;
    }
    if (end != address + bytes) return {all.end(), all.end()};
    return {first, last};
}

bool inside_one_reservation(std::uint64_t address, std::size_t bytes) {
    const auto after = device().reservations.upper_bound(address);
    if (after == device().reservations.begin()) return false;
    const auto& [start, size] = *std::prev(after);
    return address - start < size && bytes <= size - (address - start);
}

bool anything_mapped(std::uint64_t address, std::size_t bytes) {
    return std::ranges::any_of(device().mappings, [&](const auto& entry) {
        return Span{entry.first, entry.second.bytes}.overlaps(address, bytes);
    });
}

}  // namespace

FAKE_EXPORT Result cuMemGetAllocationGranularity(std::size_t* bytes, const Prop* prop, int option) {
    FAKE_BEGIN(init);
    if (const Result refused = check_prop(__func__, prop)) return refused;
    if (bytes == nullptr || option < 0 || option > 1)
        return violate(invalid_value, "cuMemGetAllocationGranularity: option %d, or no place for the answer", option);
    *bytes = granularity();
    return success;
}

FAKE_EXPORT Result cuMemAddressReserve(std::uint64_t* address, std::size_t bytes, std::size_t alignment,
                                       std::uint64_t hint, unsigned long long flags) {
    FAKE_BEGIN(init);
    if (address == nullptr || bytes == 0 || !aligned(bytes) || flags != 0 || !aligned(hint))
        return violate(invalid_value, "cuMemAddressReserve: %#zx bytes at %#lx, flags %llu", bytes, hint, flags);
    if (alignment != 0 && !std::has_single_bit(alignment))
        return violate(invalid_value, "cuMemAddressReserve: alignment %#zx is not a power of two", alignment);
    const std::uint64_t place = reserve_space(bytes, std::max(alignment, granularity()));
    if (place == 0) return out_of_memory;
    const std::lock_guard lock(device().mutex);
    device().reservations.emplace(place, bytes);
    live("reservations", 1);
    *address = place;
    return success;
}

FAKE_EXPORT Result cuMemAddressFree(std::uint64_t address, std::size_t bytes) {
    FAKE_BEGIN(init);
    const std::lock_guard lock(device().mutex);
    const auto found = device().reservations.find(address);
    if (found == device().reservations.end() || found->second != bytes)
        return violate(invalid_value, "cuMemAddressFree: %#lx + %#zx is not a whole reservation", address, bytes);
    if (anything_mapped(address, bytes))
        return violate(invalid_value, "cuMemAddressFree: something is mapped in %#lx + %#zx", address, bytes);
    release_space(address, bytes);
    device().reservations.erase(found);
    live("reservations", -1);
    return success;
}

FAKE_EXPORT Result cuMemCreate(Handle* handle, std::size_t bytes, const Prop* prop, unsigned long long flags) {
    FAKE_BEGIN(init);
    if (const Result refused = check_prop(__func__, prop)) return refused;
    if (handle == nullptr || bytes == 0 || !aligned(bytes) || flags != 0)
        return violate(invalid_value, "cuMemCreate: %#zx bytes, flags %llu", bytes, flags);
    if (!take(bytes)) return out_of_memory;
    const std::lock_guard lock(device().mutex);
    const auto offset = device().storage.create(bytes);
    if (!offset) {
        give(bytes);
        return operating_system;
    }
    *handle = device().next_handle++;
    device().physicals.emplace(*handle, Physical{bytes, *offset, false, 0});
    live("handles", 1);
    return success;
}

FAKE_EXPORT Result cuMemRelease(Handle handle) {
    FAKE_BEGIN(init);
    const std::lock_guard lock(device().mutex);
    const auto found = device().physicals.find(handle);
    if (found == device().physicals.end() || found->second.released)
        return violate(invalid_value, "cuMemRelease: handle %#lx is not held", handle);
    found->second.released = true;
    live("handles", -1);
    device().drop_if_unused(handle);
    return success;
}

FAKE_EXPORT Result cuMemMap(std::uint64_t address, std::size_t bytes, std::size_t offset, Handle handle,
                            unsigned long long flags) {
    FAKE_BEGIN(init);
    if (const Result refused = check_range(__func__, address, bytes)) return refused;
    if (offset != 0 || flags != 0) return violate(invalid_value, "cuMemMap: offset %zu, flags %llu", offset, flags);
    const std::lock_guard lock(device().mutex);
    const auto found = device().physicals.find(handle);
    if (found == device().physicals.end() || found->second.released)
        return violate(invalid_value, "cuMemMap: handle %#lx is not held", handle);
    if (found->second.bytes != bytes)
        return violate(invalid_value, "cuMemMap: %#zx bytes of a handle of %#zx", bytes, found->second.bytes);
    if (!inside_one_reservation(address, bytes))
        return violate(invalid_value, "cuMemMap: %#lx + %#zx is not reserved", address, bytes);
    if (anything_mapped(address, bytes))
        return violate(invalid_value, "cuMemMap: %#lx + %#zx is mapped already", address, bytes);
    if (!device().storage.show(address, bytes, found->second.offset)) return operating_system;
    device().mappings.emplace(address, Mapping{bytes, handle, access_none});
    ++found->second.mappings;
    live("mappings", 1);
    return success;
}

FAKE_EXPORT Result cuMemUnmap(std::uint64_t address, std::size_t bytes) {
    FAKE_BEGIN(init);
    if (const Result refused = check_range(__func__, address, bytes)) return refused;
    const std::lock_guard lock(device().mutex);
    const auto [first, last] = whole_mappings(address, bytes);
    if (first == last)
        return violate(invalid_value, "cuMemUnmap: %#lx + %#zx is not made of whole mappings", address, bytes);
    if (device().busy(address, bytes))
        return violate(illegal_address, "cuMemUnmap: queued work uses %#lx + %#zx", address, bytes);
    if (!hide(address, bytes)) return operating_system;
    for (auto mapping = first; mapping != last; ++mapping) {
        const Handle handle = mapping->second.physical;
        --device().physicals.at(handle).mappings;
        device().drop_if_unused(handle);
    }
    live("mappings", -std::distance(first, last));
    device().mappings.erase(first, last);
    return success;
}

FAKE_EXPORT Result cuMemSetAccess(std::uint64_t address, std::size_t bytes, const Access* access, std::size_t count) {
    FAKE_BEGIN(init);
    if (const Result refused = check_range(__func__, address, bytes)) return refused;
    if (access == nullptr || count != 1 || access->location.type != location_device || access->location.id != 0)
        return violate(invalid_value, "cuMemSetAccess: %zu descriptions, which must be one, of this device", count);
    if (access->flags != access_none && access->flags != access_read && access->flags != access_write)
        return violate(invalid_value, "cuMemSetAccess: flags %d", access->flags);
    const std::lock_guard lock(device().mutex);
    const auto [first, last] = whole_mappings(address, bytes);
    if (first == last)
        return violate(invalid_value, "cuMemSetAccess: %#lx + %#zx is not made of whole mappings", address, bytes);
    if (access->flags != access_write && device().busy(address, bytes))
        return violate(illegal_address, "cuMemSetAccess: queued work uses %#lx + %#zx", address, bytes);
    if (!protect(address, bytes, access->flags)) return operating_system;
    for (auto mapping = first; mapping != last; ++mapping) mapping->second.access = access->flags;
    return success;
}
