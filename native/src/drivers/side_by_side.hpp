// Pieces of one job on all cores: threads take the next piece until there is none.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <system_error>
#include <thread>
#include <vector>

namespace dormouse {

// Calls work(0) … work(count - 1), each once, on this thread and as many more as pay; returns when all are done.
// `work` must not throw.
template <class Work>
void side_by_side(std::size_t count, const Work& work) {
    std::atomic<std::size_t> next = 0;
    const auto take = [&]() noexcept {
        for (std::size_t i = next++; i < count; i = next++) {
            work(i);
        }
    };
    std::vector<std::jthread> helpers;
    const std::size_t threads = std::min<std::size_t>(count, std::max(1U, std::thread::hardware_concurrency()));
    try {
        helpers.reserve(threads);
        while (helpers.size() + 1 < threads) {
            helpers.emplace_back(take);
        }
    } catch (const std::system_error&) {
        // No more threads to be had: fewer do the same work.
    }
    take();
}

}  // namespace dormouse
