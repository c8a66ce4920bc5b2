// Seam: where physical device memory comes from.
//
// Today it is created and released through the driver. A lender (one owner of the device's memory that lends it to
// many engines) is another implementation; the pool never learns which.
#pragma once

#include <cstddef>

#include "dormouse/driver.hpp"

namespace dormouse {

class DeviceMemory {
   public:
    virtual ~DeviceMemory() = default;
    // Throws out_of_memory when there is no room now.
    virtual Physical take(std::size_t bytes) = 0;
    virtual void give_back(Physical physical, std::size_t bytes) = 0;
    // Bytes that take() could hand out now, measured.
    virtual std::size_t available() = 0;
};

// Created and released through `driver`, which must outlive it.
std::unique_ptr<DeviceMemory> make_driver_memory(Driver& driver);

}  // namespace dormouse
