// Who waits for a mutex has it before the thread that gives it up and wants it again at once.
#include "dormouse/fair_mutex.hpp"

#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <fstream>
#include <mutex>
#include <string>
#include <thread>

namespace dormouse {
namespace {

TEST(FairMutex, IsHeldByOneAtATime) {
    FairMutex mutex;
    int guarded = 0;
    const auto count = [&] {
        for (int i = 0; i < 20000; ++i) {
            const std::lock_guard lock(mutex);
            ++guarded;
        }
    };
    std::thread other(count);
    std::thread third(count);
    count();
    other.join();
    third.join();
    EXPECT_EQ(guarded, 60000);
}

// Whether the kernel has put a thread of this process to sleep: it waits for something.
bool waits(pid_t thread) {
    std::ifstream file("/proc/self/task/" + std::to_string(thread) + "/stat");
    std::string line;
    std::getline(file, line);
    return line.substr(line.rfind(')') + 2, 1) == "S";
}

// std::mutex fails some of these rounds.
TEST(FairMutex, GoesToWhoWaitsAndNotBackToWhoHadIt) {
    FairMutex mutex;
    for (int round = 0; round < 200; ++round) {
        std::atomic<pid_t> asks = 0;
        bool has_had = false;
        std::unique_lock mine(mutex);
        std::thread other([&] {
            asks = static_cast<pid_t>(::syscall(SYS_gettid));
            const std::lock_guard lock(mutex);
            has_had = true;
        });
        while (asks == 0 || !waits(asks)) {
            std::this_thread::yield();
        }
        mine.unlock();
        mine.lock();
        EXPECT_TRUE(has_had) << "in round " << round;
        mine.unlock();
        other.join();
    }
}

}  // namespace
}  // namespace dormouse
