// A thread that does tasks in the order in which they were posted.
//
// It starts with the first task and ends with the Worker. The first task that throws ends the work: those behind it
// are dropped, and finish() throws what it threw. Time is handed over both ways: a task begins no earlier than it was
// posted, and finish() returns no earlier than the last task was done.
#pragma once

#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>

#include "dormouse/clock.hpp"

namespace dormouse {

class Worker {
   public:
    // `clock` must outlive the worker.
    explicit Worker(Clock& clock) : clock_(clock) {}
    // Drops tasks that have not begun and waits for the one that has.
    ~Worker();
    Worker(const Worker&) = delete;
    Worker& operator=(const Worker&) = delete;

    // Throws what an earlier task threw.
    void post(std::function<void()> task);
    // Waits for all tasks; throws what one of them threw.
    void finish();
    // Drops tasks that have not begun and takes no more; does not wait. Makes ending many workers quick.
    void drop() noexcept;

   private:
    struct Task {
        std::function<void()> run;
        double posted;
    };
    void run() noexcept;

    Clock& clock_;
    std::mutex mutex_;
    std::condition_variable changed_;
    std::deque<Task> tasks_;
    std::exception_ptr failure_;
    bool busy_ = false;
    bool stopping_ = false;
    double done_at_ = 0;
    std::thread thread_;
};

}  // namespace dormouse
