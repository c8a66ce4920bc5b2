// The simulated machine's clock and host memory: time that passes only where work is done, and addresses that lead
// nowhere (they are outside of what a process can have, so a stray access faults).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>

#include "dormouse/clock.hpp"
#include "dormouse/host_memory.hpp"
#include "drivers/sim_model.hpp"
#include "drivers/timeline.hpp"

namespace dormouse {

// Every thread has its own time, which begins at 0; who waited for another catches up.
class SimClock final : public Clock {
   public:
    SimClock();
    double now() override;
    void catch_up(double time) override;
    void sleep(double seconds) override;

   private:
    std::uint64_t id_;  // its key in each thread's table of times; never used twice
};

class SimHost final : public HostMemory {
   public:
    SimHost(const SimModel& model, SimClock& clock);

    void* reserve(std::size_t bytes) override;
    void unreserve(void* address, std::size_t bytes) noexcept override;
    void commit(void* address, std::size_t bytes) override;
    void decommit(void* address, std::size_t bytes) noexcept override;
    void copy(void* to, const void* from, std::size_t bytes) override;
    // No content, so of the size alone, as the device's. Assumed to be as quick as a copy by one thread.
    std::uint64_t digest(const void* data, std::size_t bytes, std::uint64_t first_word) override;
    std::size_t available() override;

    // Address space and pages in one, and both back, without the time that it takes. Throws host_out_of_memory.
    void* allocate(std::size_t bytes);
    void free(void* address, std::size_t bytes);
    // False where any of it is address space of this host without pages; memory of others is theirs to judge.
    bool backed(const void* address, std::size_t bytes);

   private:
    void* take_addresses(std::size_t bytes);
    std::size_t drop_pages(std::uintptr_t from, std::uintptr_t to);
    std::size_t add_pages(std::uintptr_t from, std::uintptr_t to);
    void work(Timeline& timeline, const std::array<double, 3>& rates, std::size_t bytes);

    const SimModel& model_;
    SimClock& clock_;
    std::mutex mutex_;
    std::uintptr_t next_;
    std::size_t committed_ = 0;
    std::map<std::uintptr_t, std::uintptr_t> pages_;  // begin to end of what is committed; neighbours stay apart
    Timeline touching_, copying_;
};

}  // namespace dormouse
