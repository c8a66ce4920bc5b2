// A mutex whose holder can't have it again before those who wait for it already.
//
// std::mutex may go to whoever asks first, and that is a thread that unlocks and locks again at once: a staging that
// never pauses kept everybody else from a segment until it was through with it.
#pragma once

#include <mutex>

namespace dormouse {

class FairMutex {
   public:
    void lock() {
        const std::lock_guard entrance(entrance_);
        mutex_.lock();
    }
    void unlock() { mutex_.unlock(); }

   private:
    std::mutex entrance_;  // held by the one who is next
    std::mutex mutex_;
};

}  // namespace dormouse
