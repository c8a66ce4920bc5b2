// Has the driver do its books on released memory while nobody waits for them.
//
// A CUDA device clears released memory in the background. The driver learns what is clear when somebody next creates
// memory, and goes through all of it then, 64 KiB by 64 KiB: after a sleep of 80 GiB the first create takes some 15 ms,
// and that would be the wake's. So a while after the last release, when the clearing is over, a granule is created and
// released for nothing.
//
// One thread, from the first release on. What it tries may fail: then whoever creates next waits, as without it.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <thread>

#include "dormouse/driver.hpp"

namespace dormouse {

class Collector {
   public:
    // Collects once nothing was released or taken for `quiet` seconds. `driver` must outlive it.
    Collector(Driver& driver, double quiet);
    // Waits for a collection that is under way.
    ~Collector();
    Collector(const Collector&) = delete;
    Collector& operator=(const Collector&) = delete;

    void released() noexcept;
    // Whoever takes memory has done the books by that.
    void taken() noexcept;

   private:
    using Time = std::chrono::steady_clock;
    void run() noexcept;
    void collect() noexcept;

    Driver& driver_;
    const Time::duration quiet_;
    std::mutex mutex_;
    std::condition_variable changed_;
    Time::time_point due_;
    bool wanted_ = false;
    bool stopping_ = false;
    std::optional<Physical> held_;  // what the thread could not release; its own while it runs
    std::thread thread_;
};

}  // namespace dormouse
