#include "drivers/books.hpp"

#include <cerrno>
#include <iterator>

#include "dormouse/error.hpp"

namespace dormouse {

Books::Books(std::string_view driver, std::size_t granularity, std::size_t capacity)
    : driver_(driver), granularity_(granularity), capacity_(capacity) {}

void Books::refuse(std::string_view call, int code, std::string_view why) const {
    throw driver_error(driver_ + "." + std::string(call), code, why);
}

void Books::check_size(std::string_view call, std::size_t bytes) const {
    if (bytes == 0 || bytes % granularity_ != 0) {
        refuse(call, EINVAL, "the size is no multiple of the granularity");
    }
}

void Books::check_range(std::string_view call, Address address, std::size_t bytes) const {
    check_size(call, bytes);
    if (address % granularity_ != 0 || address + bytes < address) {
        refuse(call, EINVAL, "the address is no multiple of the granularity");
    }
}

void Books::reserve(Address address, std::size_t bytes) {
    check_range("reserve", address, bytes);
    reservations_.emplace(address, bytes);
}

void Books::unreserve(Address address, std::size_t bytes) {
    const auto it = reservations_.find(address);
    if (it == reservations_.end() || it->second != bytes) {
        refuse("unreserve", EFAULT, "not one whole reservation");
    }
    // Mappings never reach over a reservation's end, so the first one at or after its start tells.
    const auto mapping = mappings_.lower_bound(address);
    if (mapping != mappings_.end() && mapping->first < address + bytes) {
        refuse("unreserve", EBUSY, "memory is still mapped there");
    }
    reservations_.erase(it);
}

Physical Books::create(std::size_t bytes) {
    check_size("create", bytes);
    if (bytes > capacity_ - created_) {
        throw out_of_memory(bytes, capacity_ - created_, driver_ + ".create");
    }
    physicals_.emplace(next_, Memory{.bytes = bytes});
    created_ += bytes;
    return next_++;
}

const Books::Memory& Books::held(std::string_view call, Physical physical) const {
    const auto it = physicals_.find(physical);
    if (it == physicals_.end() || !it->second.held) {
        refuse(call, EINVAL, "unknown handle");
    }
    return it->second;
}

std::size_t Books::drop_if_unused(Physical physical) {
    const auto it = physicals_.find(physical);
    const Memory memory = it->second;
    if (memory.held || memory.mapped) {
        return 0;
    }
    created_ -= memory.bytes;
    physicals_.erase(it);
    return memory.bytes;
}

std::size_t Books::release(Physical physical) {
    static_cast<void>(held("release", physical));
    physicals_.at(physical).held = false;
    return drop_if_unused(physical);
}

void Books::check_map(Address address, std::size_t bytes, Physical physical) const {
    check_range("map", address, bytes);
    const Memory& memory = held("map", physical);
    if (memory.bytes != bytes) {
        refuse("map", EINVAL, "the size is not that of the physical memory");
    }
    if (memory.mapped) {
        refuse("map", EBUSY, "the memory is mapped already");
    }
    const auto after = reservations_.upper_bound(address);
    if (after == reservations_.begin() || address + bytes > std::prev(after)->first + std::prev(after)->second) {
        refuse("map", EFAULT, "the addresses are not reserved");
    }
    const auto next = mappings_.lower_bound(address);
    const bool hits_next = next != mappings_.end() && next->first < address + bytes;
    const bool hits_previous =
        next != mappings_.begin() && std::prev(next)->first + std::prev(next)->second.bytes > address;
    if (hits_next || hits_previous) {
        refuse("map", EBUSY, "the addresses are taken");
    }
}

void Books::map(Address address, std::size_t bytes, Physical physical) {
    check_map(address, bytes, physical);
    mappings_.emplace(address, Mapping{bytes, physical, false});
    physicals_.at(physical).mapped = true;
}

void Books::check_whole_mappings(std::string_view call, Address address, std::size_t bytes) const {
    check_range(call, address, bytes);
    Address at = address;
    for (auto it = mappings_.find(address); at < address + bytes; ++it) {
        if (it == mappings_.end() || it->first != at || it->second.bytes > address + bytes - at) {
            refuse(call, EFAULT, "not made of whole mappings");
        }
        at += it->second.bytes;
    }
}

void Books::check_allow(Address address, std::size_t bytes) const {
    check_whole_mappings("allow", address, bytes);
}

std::vector<std::size_t> Books::allow(Address address, std::size_t bytes) {
    check_allow(address, bytes);
    std::vector<std::size_t> sizes;
    for (auto it = mappings_.find(address); it != mappings_.end() && it->first < address + bytes; ++it) {
        it->second.allowed = true;
        sizes.push_back(it->second.bytes);
    }
    return sizes;
}

void Books::check_unmap(Address address, std::size_t bytes) const {
    check_range("unmap", address, bytes);
    const auto it = mappings_.find(address);
    if (it == mappings_.end() || it->second.bytes != bytes) {
        refuse("unmap", EFAULT, "not one whole mapping");
    }
}

std::size_t Books::unmap(Address address, std::size_t bytes) {
    check_unmap(address, bytes);
    const auto it = mappings_.find(address);
    const Physical physical = it->second.physical;
    physicals_.at(physical).mapped = false;
    mappings_.erase(it);
    return drop_if_unused(physical);
}

void Books::check_access(std::string_view call, Address address, std::size_t bytes) const {
    if (bytes == 0) {
        return;
    }
    auto it = mappings_.upper_bound(address);
    if (address + bytes < address || it == mappings_.begin()) {
        refuse(call, EFAULT, "the device memory is not mapped");
    }
    Address at = std::prev(it)->first;
    for (--it; at < address + bytes; ++it) {
        if (it == mappings_.end() || it->first != at || at + it->second.bytes <= address) {
            refuse(call, EFAULT, "the device memory is not mapped");
        }
        if (!it->second.allowed) {
            refuse(call, EFAULT, "access to the device memory was not allowed");
        }
        at += it->second.bytes;
    }
}

}  // namespace dormouse
