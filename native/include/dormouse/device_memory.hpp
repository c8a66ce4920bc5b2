// Seam: where physical device memory comes from, and who hears that it came back.
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
    // A handle of memory that will be mapped at `place`, which names this loan until it is over. Throws out_of_memory
    // when there is no room now.
    virtual Physical take(Address place, std::size_t bytes) = 0;
    // The pool needs this handle no more: once per take(), before or after the unmap (Driver::mapping_keeps_memory).
    // Where it throws, it is called again.
    virtual void let_go(Physical physical) = 0;
    // Neither handle nor mapping is left: the memory for `place` is free. A driver knows without being told.
    virtual void returned(Address place, std::size_t bytes) noexcept = 0;
    // Bytes that take() could hand out now, measured.
    virtual std::size_t available() = 0;
};

// Created and released through `driver`, which must outlive it. A driver that collects late is made to collect once
// nothing was released or taken for `collect_seconds`; 0: never.
std::unique_ptr<DeviceMemory> make_driver_memory(Driver& driver, double collect_seconds);

}  // namespace dormouse
