// A reserved range of device addresses, for as long as the object lives.
#pragma once

#include <cstddef>
#include <utility>

#include "dormouse/driver.hpp"

namespace dormouse {

class Region {
   public:
    Region(Driver& driver, std::size_t bytes) : driver_(&driver), address_(driver.reserve(bytes)), bytes_(bytes) {}
    ~Region() {
        try {
            driver_->unreserve(address_, bytes_);
        } catch (...) {
            // Addresses are all that is lost, and there are 2^47 of them.
        }
    }
    Region(const Region&) = delete;
    Region& operator=(const Region&) = delete;

    Address address() const noexcept { return address_; }
    std::size_t bytes() const noexcept { return bytes_; }

   private:
    Driver* driver_;
    Address address_;
    std::size_t bytes_;
};

}  // namespace dormouse
