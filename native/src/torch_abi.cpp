#include "dormouse/torch_abi.hpp"

#include <algorithm>
#include <array>
#include <mutex>
#include <set>
#include <string_view>
#include <utility>

#include "dormouse/error.hpp"

namespace dormouse {

namespace {

constexpr int most_devices = 64;

struct Installed {
    std::mutex mutex;
    std::array<std::shared_ptr<Pool>, most_devices> pools;
    std::set<std::string> tags;  // that any thread has set
};

// Never destroyed: torch frees its last segments while the process ends.
Installed& registry() {
    static auto* const instance = new Installed;
    return *instance;
}

// Without destructors: a thread's objects end before the handlers of the process's end run, and torch frees in those.
thread_local const std::string* current_tag = nullptr;
thread_local std::array<char, 1024> last_error{};

void remember(std::string_view failure) noexcept {
    const std::size_t size = std::min(failure.size(), last_error.size() - 1);
    std::copy_n(failure.begin(), size, last_error.begin());
    last_error.at(size) = '\0';
}

const std::string& tag_of_thread() {
    static const auto* const otherwise = new std::string("default");
    return current_tag != nullptr ? *current_tag : *otherwise;
}

void expect_device(int device) {
    if (device < 0 || device >= most_devices) {
        throw invalid_argument("device " + std::to_string(device) + " is not in 0.." +
                               std::to_string(most_devices - 1));
    }
}

std::shared_ptr<Pool> pool_of(int device) {
    std::shared_ptr<Pool> pool = installed(device);
    if (!pool) {
        throw illegal_state("no pool is installed for device " + std::to_string(device));
    }
    return pool;
}

// Runs `action` and keeps what it threw, since nothing may cross a C boundary.
template <typename Result, typename Action>
Result guarded(Result otherwise, Action action) noexcept {
    try {
        return action();
    } catch (const std::exception& failure) {
        remember(failure.what());
    } catch (...) {
        remember("an error without words");
    }
    return otherwise;
}

}  // namespace

void install(std::shared_ptr<Pool> pool, int device) {
    expect_device(device);
    const std::lock_guard lock(registry().mutex);
    std::shared_ptr<Pool>& place = registry().pools[static_cast<std::size_t>(device)];
    if (place && place != pool) {
        throw illegal_state("device " + std::to_string(device) + " has a pool already: one engine per process");
    }
    place = std::move(pool);
}

std::shared_ptr<Pool> installed(int device) noexcept {
    if (device < 0 || device >= most_devices) {
        return nullptr;
    }
    const std::lock_guard lock(registry().mutex);
    return registry().pools[static_cast<std::size_t>(device)];
}

std::string set_tag(std::string tag) {
    if (tag.empty()) {
        throw invalid_argument("a tag needs a name");
    }
    const std::string& before = tag_of_thread();
    const std::lock_guard lock(registry().mutex);
    current_tag = &*registry().tags.insert(std::move(tag)).first;
    return before;
}

}  // namespace dormouse

void* dormouse_malloc(std::size_t bytes, int device, void* /*stream*/) {
    return dormouse::guarded<void*>(nullptr, [&] {
        return reinterpret_cast<void*>(dormouse::pool_of(device)->malloc(bytes, dormouse::tag_of_thread()));
    });
}

void dormouse_free(void* address, std::size_t /*bytes*/, int device, void* /*stream*/) {
    dormouse::guarded<bool>(false, [&] {
        dormouse::pool_of(device)->free(reinterpret_cast<dormouse::Address>(address));
        return true;
    });
}

const char* dormouse_last_error(void) {
    return dormouse::last_error.data();
}
