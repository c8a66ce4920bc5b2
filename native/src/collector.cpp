#include "collector.hpp"

#include <exception>
#include <system_error>

namespace dormouse {

Collector::Collector(Driver& driver, double quiet)
    : driver_(driver), quiet_(std::chrono::duration_cast<Time::duration>(std::chrono::duration<double>(quiet))) {}

Collector::~Collector() {
    {
        const std::lock_guard lock(mutex_);
        stopping_ = true;
    }
    changed_.notify_all();
    if (thread_.joinable()) {
        thread_.join();
    }
    if (held_) {
        collect();
    }
}

void Collector::released() noexcept {
    const std::lock_guard lock(mutex_);
    due_ = Time::now() + quiet_;
    if (wanted_) {
        return;  // the thread looks again when it thinks that it is time
    }
    try {
        if (!thread_.joinable()) {
            thread_ = std::thread([this] { run(); });
        }
        wanted_ = true;
        changed_.notify_all();
    } catch (const std::system_error&) {
        // No thread: tried again by the next release.
    }
}

void Collector::taken() noexcept {
    const std::lock_guard lock(mutex_);
    wanted_ = false;
}

void Collector::run() noexcept {
    std::unique_lock lock(mutex_);
    while (!stopping_) {
        if (!wanted_) {
            changed_.wait(lock);
        } else if (Time::now() < due_) {
            const Time::time_point due = due_;  // which moves while this waits
            changed_.wait_until(lock, due);
        } else {
            wanted_ = false;
            lock.unlock();
            collect();
            lock.lock();
        }
    }
}

void Collector::collect() noexcept {
    try {
        if (!held_) {
            held_ = driver_.create(driver_.granularity());
        }
        driver_.release(*held_);
        held_.reset();
    } catch (const std::exception&) {
        // No room, or no device any more.
    }
}

}  // namespace dormouse
