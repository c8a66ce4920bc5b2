// Copies of a failed transfer that may still be under way.
//
// A transfer waits for its copies before it throws. Where that wait fails too, nobody knows when they will land: until
// the device has been waited for, neither the memory that they touch nor their slots may be given back, and nothing may
// be mapped at their addresses.
#pragma once

#include <atomic>
#include <cstdint>

#include "dormouse/driver.hpp"

namespace dormouse {

class Strays {
   public:
    explicit Strays(Driver& driver) : driver_(driver) {}

    // A transfer has failed: there may be some.
    void suspect() noexcept { ++suspected_; }
    // Returns when there are none; throws what the device says where it can't be waited for. Several threads may call
    // it while others suspect: a wait covers what was suspected before it began.
    void wait() {
        const std::uint64_t begun = suspected_;
        std::uint64_t gone = gone_;
        if (gone >= begun) {
            return;
        }
        driver_.synchronize_device();
        while (gone < begun && !gone_.compare_exchange_weak(gone, begun)) {
        }
    }
    bool gone() noexcept {
        try {
            wait();
            return true;
        } catch (...) {
            return false;
        }
    }

   private:
    Driver& driver_;
    std::atomic<std::uint64_t> suspected_{0};  // how often
    std::atomic<std::uint64_t> gone_{0};       // of these, those that were waited for
};

}  // namespace dormouse
