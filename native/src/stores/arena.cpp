#include "stores/arena.hpp"

#include <algorithm>
#include <iterator>
#include <numeric>

#include "address_space.hpp"
#include "dormouse/error.hpp"

namespace dormouse {

namespace {

constexpr std::size_t smallest_region = std::size_t{1} << 30;

}  // namespace

Arena::~Arena() {
    for (const Region& region : regions_) {
        host_.unreserve(region.address, region.bytes);
    }
}

std::byte* Arena::Region::book(std::size_t wanted) {
    for (auto it = extents.begin(); it != extents.end(); ++it) {
        auto& [offset, extent] = *it;
        if (!extent.free || extent.bytes < wanted) {
            continue;
        }
        if (extent.bytes > wanted) {
            extents.emplace_hint(std::next(it), offset + wanted, Extent{extent.bytes - wanted, true});
        }
        extent = {wanted, false};
        return address + offset;
    }
    return nullptr;
}

void Arena::Region::free(std::size_t offset) noexcept {
    auto it = extents.find(offset);
    it->second.free = true;
    if (const auto next = std::next(it); next != extents.end() && next->second.free) {
        it->second.bytes += next->second.bytes;
        extents.erase(next);
    }
    if (it != extents.begin()) {
        if (const auto before = std::prev(it); before->second.free) {
            before->second.bytes += it->second.bytes;
            extents.erase(it);
        }
    }
}

Arena::Region& Arena::grow(std::size_t at_least, std::size_t better) {
    regions_.emplace_back();
    Region& region = regions_.back();
    try {
        try {
            region.address = static_cast<std::byte*>(host_.reserve(better));
            region.bytes = better;
        } catch (const host_out_of_memory&) {  // address space is limited: take what is needed now
            region.address = static_cast<std::byte*>(host_.reserve(at_least));
            region.bytes = at_least;
        }
        region.extents.emplace(0, Extent{region.bytes, true});
    } catch (...) {
        if (region.address != nullptr) {
            host_.unreserve(region.address, region.bytes);
        }
        regions_.pop_back();
        throw;
    }
    reserved_ += region.bytes;
    return region;
}

std::byte* Arena::book_one(std::size_t bytes, std::size_t all_that_follows) {
    for (Region& region : regions_) {
        if (std::byte* address = region.book(bytes)) {
            return address;
        }
    }
    return grow(bytes, std::max({all_that_follows, reserved_, smallest_region})).book(bytes);
}

std::vector<std::byte*> Arena::book(std::span<const std::size_t> sizes) {
    const std::lock_guard lock(mutex_);
    std::vector<std::byte*> booked;
    booked.reserve(sizes.size());
    std::size_t left = std::transform_reduce(sizes.begin(), sizes.end(), std::size_t{0}, std::plus<>(), whole_pages);
    try {
        for (const std::size_t bytes : sizes) {
            booked.push_back(book_one(whole_pages(bytes), left));
            left -= whole_pages(bytes);
        }
    } catch (...) {
        for (std::byte* address : booked) {
            free_locked(address);
        }
        throw;
    }
    return booked;
}

void Arena::free(std::byte* address) noexcept {
    const std::lock_guard lock(mutex_);
    free_locked(address);
}

void Arena::free_locked(std::byte* address) noexcept {
    for (Region& region : regions_) {
        if (address >= region.address && address < region.address + region.bytes) {
            region.free(static_cast<std::size_t>(address - region.address));
            return;
        }
    }
}

}  // namespace dormouse
