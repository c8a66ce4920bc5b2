// The one State of a fake library. It is never destroyed: calls may come while the process ends.
#include "fake_state.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace fake {
namespace {

struct Fault {
    std::string symbol;  // empty: any
    unsigned wait;       // calls that still work
    unsigned times;
    int code;
};

constexpr std::size_t real_granularity = std::size_t{2} << 20;

struct State {
    std::mutex mutex;
    std::size_t capacity = std::size_t{1} << 30;
    std::size_t granularity = real_granularity;
    std::size_t used = 0;
    std::size_t squatted = 0;
    double copy_rate = 0;
    unsigned stall = 0;
    std::map<int, int> attributes;
    std::vector<const char*> calls;
    std::map<std::string, unsigned long, std::less<>> call_counts;
    std::vector<Fault> faults;
    std::deque<std::string> violations;  // a deque: the address of a message stays
    std::map<std::string, long, std::less<>> live;

    std::size_t free_bytes() const {
        const std::size_t held = used + squatted;
        return held < capacity ? capacity - held : 0;
    }
};

State& state() {
    static State* const instance = new State;
    return *instance;
}

// Each fault counts the calls that match it, also while another one fires.
int injected(std::vector<Fault>& faults, std::string_view symbol) {
    int code = 0;
    for (Fault& fault : faults) {
        if (!fault.symbol.empty() && fault.symbol != symbol) continue;
        if (fault.wait > 0) {
            --fault.wait;
        } else if (fault.times > 0) {
            --fault.times;
            if (code == 0) code = fault.code;
        }
    }
    std::erase_if(faults, [](const Fault& fault) { return fault.times == 0; });
    return code;
}

__attribute__((destructor)) void report_leaks() {
    const char* wanted = std::getenv("FAKE_REPORT_LEAKS");
    if (wanted == nullptr || std::string_view(wanted) != "1") return;
    const std::lock_guard lock(state().mutex);
    for (const auto& [what, count] : state().live)
        if (count != 0) std::fprintf(stderr, "fake driver: leaked %ld %s\n", count, what.c_str());
    if (state().used != 0) std::fprintf(stderr, "fake driver: leaked %zu bytes\n", state().used);
}

}  // namespace

int enter(const char* symbol) {
    State& all = state();
    const std::lock_guard lock(all.mutex);
    all.calls.push_back(symbol);
    ++all.call_counts[symbol];
    return injected(all.faults, symbol);
}

int violate(int code, const char* format, ...) {
    std::array<char, 512> words{};
    std::va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(words.data(), words.size(), format, arguments);
    va_end(arguments);
    const std::lock_guard lock(state().mutex);
    state().violations.emplace_back(words.data());
    return code;
}

std::size_t granularity() {
    const std::lock_guard lock(state().mutex);
    return state().granularity;
}

bool take(std::size_t bytes) {
    const std::lock_guard lock(state().mutex);
    if (bytes > state().free_bytes()) return false;
    state().used += bytes;
    return true;
}

void give(std::size_t bytes) {
    const std::lock_guard lock(state().mutex);
    state().used -= std::min(bytes, state().used);
}

Memory memory() {
    const std::lock_guard lock(state().mutex);
    return {state().free_bytes(), state().capacity};
}

void live(const char* what, long change) {
    const std::lock_guard lock(state().mutex);
    state().live[what] += change;
}

void pace(std::size_t bytes) {
    double rate = 0;
    {
        const std::lock_guard lock(state().mutex);
        rate = state().copy_rate;
    }
    if (rate > 0) std::this_thread::sleep_for(std::chrono::duration<double>(static_cast<double>(bytes) / rate));
}

int attribute_or(int which, int usual) {
    const std::lock_guard lock(state().mutex);
    const auto set = state().attributes.find(which);
    return set == state().attributes.end() ? usual : set->second;
}

bool stalls() {
    const std::lock_guard lock(state().mutex);
    return state().stall > 0 && state().stall-- > 0;
}

void sit_out_the_stall() {
    const std::lock_guard lock(state().mutex);
    state().stall = 0;
}

}  // namespace fake

using fake::state;

FAKE_EXPORT void fake_reset(std::size_t capacity) {
    fake::forget();
    auto& all = state();
    const std::lock_guard lock(all.mutex);
    all.capacity = capacity;
    all.granularity = fake::real_granularity;
    all.used = all.squatted = 0;
    all.copy_rate = 0;
    all.stall = 0;
    all.attributes.clear();
    all.calls.clear();
    all.call_counts.clear();
    all.faults.clear();
    all.violations.clear();
    all.live.clear();
}

FAKE_EXPORT void fake_fail(const char* symbol, unsigned n, int code, unsigned times) {
    if (n == 0 || times == 0) return;
    const std::lock_guard lock(state().mutex);
    state().faults.push_back({symbol == nullptr ? "" : symbol, n - 1, times, code});
}

FAKE_EXPORT void fake_heal(void) {
    const std::lock_guard lock(state().mutex);
    state().faults.clear();
}

FAKE_EXPORT unsigned long fake_calls(const char* symbol) {
    const std::lock_guard lock(state().mutex);
    if (symbol == nullptr) return state().calls.size();
    const auto found = state().call_counts.find(std::string_view(symbol));
    return found == state().call_counts.end() ? 0 : found->second;
}

FAKE_EXPORT const char* fake_call_name(unsigned long k) {
    const std::lock_guard lock(state().mutex);
    return k < state().calls.size() ? state().calls[k] : nullptr;
}

FAKE_EXPORT unsigned long fake_violations(void) {
    const std::lock_guard lock(state().mutex);
    return state().violations.size();
}

FAKE_EXPORT const char* fake_last_violation(void) {
    const std::lock_guard lock(state().mutex);
    return state().violations.empty() ? "" : state().violations.back().c_str();
}

FAKE_EXPORT unsigned long fake_live(const char* what) {
    const std::lock_guard lock(state().mutex);
    if (std::string_view(what) == "bytes") return state().used;
    const auto found = state().live.find(std::string_view(what));
    return found == state().live.end() ? 0 : static_cast<unsigned long>(found->second);
}

FAKE_EXPORT void fake_squat(std::size_t bytes) {
    const std::lock_guard lock(state().mutex);
    state().squatted = bytes;
}

FAKE_EXPORT void fake_granularity(std::size_t bytes) {
    const std::lock_guard lock(state().mutex);
    state().granularity = bytes;
}

FAKE_EXPORT void fake_copy_rate(double bytes_per_second) {
    const std::lock_guard lock(state().mutex);
    state().copy_rate = bytes_per_second;
}

FAKE_EXPORT void fake_stall(unsigned questions) {
    const std::lock_guard lock(state().mutex);
    state().stall = questions;
}

FAKE_EXPORT void fake_attribute(int which, int value) {
    const std::lock_guard lock(state().mutex);
    state().attributes[which] = value;
}
