// Copies of a failed transfer that may still be under way.
//
// A transfer waits for its copies before it throws. Where that wait fails too, nobody knows when they will land: until
// the device has been waited for, neither the memory that they touch nor their slots may be given back, and nothing may
// be mapped at their addresses.
#pragma once

#include <atomic>

#include "dormouse/driver.hpp"

namespace dormouse {

class Strays {
   public:
    explicit Strays(Driver& driver) : driver_(driver) {}

    // A transfer has failed: there may be some.
    void suspect() noexcept { suspected_ = true; }
    // Returns when there are none; throws what the device says where it can't be waited for.
    void wait() {
        if (suspected_) {
            driver_.synchronize_device();
            suspected_ = false;
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
    std::atomic<bool> suspected_{false};
};

}  // namespace dormouse
