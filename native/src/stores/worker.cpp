#include "stores/worker.hpp"

#include <system_error>
#include <utility>

#include "dormouse/error.hpp"

namespace dormouse {

void Worker::post(std::function<void()> task) {
    const std::lock_guard lock(mutex_);
    if (failure_) {
        std::rethrow_exception(failure_);
    }
    const double now = clock_.now();
    if (!thread_.joinable()) {
        done_at_ = now;
        try {
            thread_ = std::thread([this] { run(); });
        } catch (const std::system_error& failure) {
            throw no_thread("a transfer", failure);
        }
    }
    tasks_.push_back({std::move(task), now});
    changed_.notify_all();
}

void Worker::run() noexcept {
    std::unique_lock lock(mutex_);
    for (;;) {
        changed_.wait(lock, [this] { return stopping_ || !tasks_.empty(); });
        if (stopping_) {
            return;
        }
        Task task = std::move(tasks_.front());
        tasks_.pop_front();
        busy_ = true;
        lock.unlock();
        std::exception_ptr failure;
        clock_.catch_up(task.posted);
        try {
            task.run();
        } catch (...) {
            failure = std::current_exception();
        }
        task.run = nullptr;  // what it holds must be free before finish() returns
        const double now = clock_.now();
        lock.lock();
        busy_ = false;
        done_at_ = now;
        if (failure) {
            failure_ = std::move(failure);
            tasks_.clear();
        }
        changed_.notify_all();
    }
}

void Worker::finish() {
    std::unique_lock lock(mutex_);
    if (!thread_.joinable()) {
        return;
    }
    changed_.wait(lock, [this] { return tasks_.empty() && !busy_; });
    clock_.catch_up(done_at_);
    if (failure_) {
        std::rethrow_exception(failure_);
    }
}

void Worker::drop() noexcept {
    std::deque<Task> dropped;
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    dropped.swap(tasks_);
    changed_.notify_all();
}

Worker::~Worker() {
    drop();
    if (thread_.joinable()) {
        thread_.join();
    }
}

}  // namespace dormouse
