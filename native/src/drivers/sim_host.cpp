#include "drivers/sim_host.hpp"

#include <algorithm>
#include <atomic>
#include <iterator>
#include <unordered_map>

#include "dormouse/digest.hpp"
#include "dormouse/error.hpp"

namespace dormouse {

namespace {

constexpr std::uintptr_t first_address = std::uintptr_t{1} << 62;
constexpr std::size_t huge_page = std::size_t{2} << 20;

std::uint64_t next_clock() {
    static std::atomic<std::uint64_t> next = 0;
    return next++;
}

// Of the calling thread, by clock.
double& own_time(std::uint64_t clock) {
    thread_local std::unordered_map<std::uint64_t, double> times;
    return times[clock];
}

std::uintptr_t number(const void* address) {
    return reinterpret_cast<std::uintptr_t>(address);
}

}  // namespace

SimClock::SimClock() : id_(next_clock()) {}

double SimClock::now() {
    return own_time(id_);
}

void SimClock::catch_up(double time) {
    double& own = own_time(id_);
    own = std::max(own, time);
}

void SimClock::sleep(double seconds) {
    own_time(id_) += std::max(seconds, 0.0);
}

SimHost::SimHost(const SimModel& model, SimClock& clock) : model_(model), clock_(clock), next_(first_address) {}

void* SimHost::take_addresses(std::size_t bytes) {
    if (bytes == 0 || bytes > first_address / 2) {
        throw invalid_argument("reserve: " + std::to_string(bytes) + " bytes of host address space");
    }
    const std::uintptr_t address = next_;
    // A gap behind each reservation, so that nothing runs from one into the next unseen.
    next_ += (bytes + 2 * huge_page - 1) / huge_page * huge_page;
    return reinterpret_cast<void*>(address);
}

void* SimHost::reserve(std::size_t bytes) {
    const std::lock_guard lock(mutex_);
    return take_addresses(bytes);
}

void SimHost::unreserve(void* address, std::size_t bytes) noexcept {
    decommit(address, bytes);
}

// Bytes that were committed between `from` and `to` and are no more.
std::size_t SimHost::drop_pages(std::uintptr_t from, std::uintptr_t to) {
    std::size_t dropped = 0;
    auto it = pages_.upper_bound(from);
    if (it != pages_.begin() && std::prev(it)->second > from) {
        --it;
    }
    while (it != pages_.end() && it->first < to) {
        const auto [begin, end] = *it;
        it = pages_.erase(it);
        dropped += std::min(end, to) - std::max(begin, from);
        if (begin < from) {
            pages_.emplace(begin, from);
        }
        if (end > to) {
            pages_.emplace(to, end);
        }
    }
    committed_ -= dropped;
    return dropped;
}

// Bytes that were not committed before.
std::size_t SimHost::add_pages(std::uintptr_t from, std::uintptr_t to) {
    const std::size_t had = drop_pages(from, to);
    const std::size_t needed = to - from - had;
    const std::size_t rest = model_.host_bytes - committed_ - had;
    if (needed > rest) {
        throw host_out_of_memory(needed, rest, "pages of the simulated host");
    }
    pages_.emplace(from, to);
    committed_ += to - from;
    return needed;
}

void SimHost::work(Timeline& timeline, const std::array<double, 3>& rates, std::size_t bytes) {
    const double together = sim_host_rate(rates, model_.host_threads);
    const double share = together / std::max(1.0, static_cast<double>(model_.host_threads));
    const double size = static_cast<double>(bytes);
    const double begin = clock_.now();
    clock_.catch_up(std::max(begin + size / share, timeline.take(begin, size / together)));
}

void SimHost::commit(void* address, std::size_t bytes) {
    const std::lock_guard lock(mutex_);
    work(touching_, model_.touch_rates, add_pages(number(address), number(address) + bytes));
}

void SimHost::decommit(void* address, std::size_t bytes) noexcept {
    const std::lock_guard lock(mutex_);
    const std::size_t dropped = drop_pages(number(address), number(address) + bytes);
    clock_.sleep(static_cast<double>(dropped) / model_.decommit_rate);
}

void SimHost::copy(void* /*to*/, const void* /*from*/, std::size_t bytes) {
    const std::lock_guard lock(mutex_);
    work(copying_, model_.copy_rates, bytes);
}

std::uint64_t SimHost::digest(const void* /*data*/, std::size_t bytes, std::uint64_t /*first_word*/) {
    clock_.sleep(static_cast<double>(bytes) / model_.copy_rates.front());
    return bytes * digest_multiplier;
}

std::size_t SimHost::available() {
    const std::lock_guard lock(mutex_);
    return model_.host_bytes - committed_;
}

void* SimHost::allocate(std::size_t bytes) {
    const std::lock_guard lock(mutex_);
    void* address = take_addresses(bytes);
    add_pages(number(address), number(address) + bytes);
    return address;
}

void SimHost::free(void* address, std::size_t bytes) {
    const std::lock_guard lock(mutex_);
    drop_pages(number(address), number(address) + bytes);
}

bool SimHost::backed(const void* address, std::size_t bytes) {
    const std::lock_guard lock(mutex_);
    std::uintptr_t at = number(address);
    const std::uintptr_t end = at + bytes;
    if (at < first_address || at >= next_) {
        return true;
    }
    while (at < end) {
        const auto after = pages_.upper_bound(at);
        if (after == pages_.begin() || std::prev(after)->second <= at) {
            return false;
        }
        at = std::prev(after)->second;
    }
    return true;
}

}  // namespace dormouse
