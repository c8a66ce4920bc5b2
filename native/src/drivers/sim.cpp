// A simulated device: finite memory, a virtual clock, the rules of driver.hpp, and no bytes.
//
// Each call books its time (sim_model.hpp) where a real one would spend it: calls of the driver on the thread that
// makes them, copies and digests on their stream. What is shared is a timeline: the link, once per direction; the
// lock behind which device memory is mapped (more threads made it slower, not faster); the lock behind which host
// memory is pinned. Threads hand their times over through Clock::catch_up; then results don't depend on how the real
// threads were scheduled.
//
// Content does not exist, so every digest says that nothing has changed: it depends on the range's size alone.
#include <algorithm>
#include <cerrno>
#include <iterator>
#include <map>
#include <mutex>
#include <set>
#include <utility>

#include "dormouse/digest.hpp"
#include "dormouse/error.hpp"
#include "drivers/books.hpp"
#include "drivers/sim_host.hpp"
#include "drivers/sim_model.hpp"
#include "drivers/timeline.hpp"

namespace dormouse {

namespace {

constexpr std::size_t unit = std::size_t{2} << 20;
constexpr Address first_address = Address{1} << 61;  // no process has memory there

SimModel with_capacity(SimModel model, std::size_t capacity) {
    model.device_bytes = capacity == 0 ? model.device_bytes : capacity;
    return model;
}

class SimDriver final : public Driver {
   public:
    SimDriver(const DriverOptions& options, const SimModel& model)
        : model_(with_capacity(model, options.capacity)), books_("sim", unit, model_.device_bytes) {}

    std::string_view name() const noexcept override { return "sim"; }
    std::string version() override { return "H200"; }
    std::string uuid() override { return {}; }
    std::size_t granularity() override { return unit; }

    MemoryInfo memory() override {
        const std::lock_guard lock(mutex_);
        return {books_.capacity() - books_.created(), books_.capacity()};
    }

    Address reserve(std::size_t bytes) override {
        const std::lock_guard lock(mutex_);
        books_.check_size("reserve", bytes);
        if (bytes > first_address / 2 || next_ > 2 * first_address - bytes - unit) {
            books_.refuse("reserve", ENOMEM, "no address space left");
        }
        books_.reserve(next_, bytes);
        // A gap behind each reservation, so that nothing runs from one into the next unseen.
        return std::exchange(next_, next_ + bytes + unit);
    }

    void unreserve(Address address, std::size_t bytes) override {
        const std::lock_guard lock(mutex_);
        books_.unreserve(address, bytes);
    }

    Physical create(std::size_t bytes) override {
        const std::lock_guard lock(mutex_);
        const Physical physical = books_.create(bytes);
        call(model_.create, bytes);
        return physical;
    }

    void release(Physical physical) override {
        const std::lock_guard lock(mutex_);
        // Of memory that stays mapped it takes no time.
        if (const std::size_t freed = books_.release(physical); freed != 0) {
            clear(freed);
        }
    }

    bool mapping_keeps_memory() noexcept override { return true; }

    void map(Address address, std::size_t bytes, Physical physical) override {
        const std::lock_guard lock(mutex_);
        books_.map(address, bytes, physical);
        call(model_.map, bytes);
    }

    void allow(Address address, std::size_t bytes) override {
        const std::lock_guard lock(mutex_);
        // One call for many mappings takes as long as one for each.
        for (const std::size_t mapping : books_.allow(address, bytes)) {
            call(model_.allow, mapping);
        }
    }

    void unmap(Address address, std::size_t bytes) override {
        const std::lock_guard lock(mutex_);
        if (const std::size_t freed = books_.unmap(address, bytes); freed != 0) {
            clear(freed);
        } else {
            call(model_.unmap, bytes);
        }
    }

    Stream create_stream(Priority /*priority*/) override {
        const std::lock_guard lock(mutex_);
        streams_.emplace(++last_stream_, clock_.now());
        return reinterpret_cast<Stream>(last_stream_);
    }

    void destroy_stream(Stream stream) noexcept override {
        const std::lock_guard lock(mutex_);
        if (stream != nullptr) {
            streams_.erase(reinterpret_cast<std::uintptr_t>(stream));
        }
    }

    void copy_to_device(Address to, const void* from, std::size_t bytes, Stream stream) override {
        const std::lock_guard lock(mutex_);
        double& time = check_copy("copy_to_device", to, from, bytes, stream);
        queue(time, up_.take(std::max(time, clock_.now()),
                             model_.up_overhead + static_cast<double>(bytes) / model_.up_rate, &clearing_));
    }

    void copy_to_host(void* to, Address from, std::size_t bytes, Stream stream) override {
        const std::lock_guard lock(mutex_);
        double& time = check_copy("copy_to_host", from, to, bytes, stream);
        queue(time, down_.take(std::max(time, clock_.now()),
                               model_.down_overhead + static_cast<double>(bytes) / model_.down_rate));
    }

    void synchronize(Stream stream) override {
        const std::lock_guard lock(mutex_);
        clock_.catch_up(time_of("synchronize", stream));
    }

    void synchronize_device() override {
        const std::lock_guard lock(mutex_);
        clock_.catch_up(last_end_);
    }

    HostMemory& host() override { return host_; }
    bool can_pin() noexcept override { return true; }

    void pin(void* address, std::size_t bytes) override {
        const std::lock_guard lock(mutex_);
        if (bytes == 0) {
            books_.refuse("pin", EINVAL, "no bytes");
        }
        if (!host_.backed(address, bytes)) {
            books_.refuse("pin", EFAULT, "the host memory was not committed");
        }
        auto* begin = static_cast<const char*>(address);
        const auto next = pinned_.lower_bound(begin);
        if ((next != pinned_.end() && next->first < begin + bytes) ||
            (next != pinned_.begin() && std::prev(next)->first + std::prev(next)->second > begin)) {
            books_.refuse("pin", EBUSY, "pinned already");
        }
        pinned_.emplace(begin, bytes);
        lock_pages(bytes, model_.pin_rate);
    }

    void unpin(void* address, std::size_t bytes) override {
        const std::lock_guard lock(mutex_);
        const auto it = pinned_.find(static_cast<const char*>(address));
        if (it == pinned_.end() || it->second != bytes || host_blocks_.contains(address)) {
            books_.refuse("unpin", EINVAL, "pin was not called for exactly this memory");
        }
        pinned_.erase(it);
        lock_pages(bytes, model_.unpin_rate);
    }

    void* host_alloc(std::size_t bytes) override {
        const std::lock_guard lock(mutex_);
        void* address = host_.allocate(bytes);
        host_blocks_.insert(address);
        pinned_.emplace(static_cast<const char*>(address), bytes);
        lock_pages(bytes, model_.host_alloc_rate);
        return address;
    }

    void host_free(void* address) override {
        const std::lock_guard lock(mutex_);
        if (host_blocks_.erase(address) == 0) {
            books_.refuse("host_free", EINVAL, "host_alloc did not give this address");
        }
        const auto it = pinned_.find(static_cast<const char*>(address));
        lock_pages(it->second, model_.host_free_rate);
        host_.free(address, it->second);
        pinned_.erase(it);
    }

    bool copies_pageable() noexcept override { return false; }
    bool can_digest() noexcept override { return true; }

    void digest(std::span<const Range> ranges, std::span<std::uint64_t> out, Stream stream) override {
        const std::lock_guard lock(mutex_);
        double& time = time_of("digest", stream);
        if (ranges.size() != out.size()) {
            books_.refuse("digest", EINVAL, "as many results as ranges are needed");
        }
        std::size_t total = 0;
        for (const Range& range : ranges) {
            if (range.bytes % 16 != 0 || range.address % 8 != 0) {
                books_.refuse("digest", EINVAL, "a range is not aligned");
            }
            books_.check_access("digest", range.address, range.bytes);
            total += range.bytes;
        }
        std::transform(ranges.begin(), ranges.end(), out.begin(),
                       [](const Range& range) { return range.bytes * digest_multiplier; });
        queue(time,
              std::max(time, clock_.now()) + model_.digest_overhead + static_cast<double>(total) / model_.digest_rate);
        clock_.catch_up(time);
    }

    Clock& clock() override { return clock_; }

   private:
    // A call that works on one chunk, one at a time in the whole driver.
    void call(const SimModel::PerChunk& microseconds, std::size_t bytes) {
        clock_.catch_up(mapping_.take(clock_.now(), sim_call_seconds(microseconds, bytes)));
    }

    // The call that frees a chunk, be it a release or an unmap: the device clears it in the background.
    void clear(std::size_t bytes) {
        clearing_.take(clock_.now(), static_cast<double>(bytes) / model_.clear_rate);
        call(model_.release, bytes);
    }

    void lock_pages(std::size_t bytes, double rate) {
        clock_.catch_up(pinning_.take(clock_.now(), static_cast<double>(bytes) / rate));
    }

    void queue(double& time, double end) {
        time = end;
        last_end_ = std::max(last_end_, end);
    }

    // When everything queued on `stream` is done.
    double& time_of(std::string_view call, Stream stream) {
        const auto it = streams_.find(reinterpret_cast<std::uintptr_t>(stream));
        if (it == streams_.end()) {
            books_.refuse(call, EINVAL, "unknown stream");
        }
        return it->second;
    }

    double& check_copy(std::string_view call, Address device, const void* host, std::size_t bytes, Stream stream) {
        double& time = time_of(call, stream);
        books_.check_access(call, device, bytes);
        const auto* at = static_cast<const char*>(host);
        for (const char* const end = at + bytes; at < end;) {
            const auto after = pinned_.upper_bound(at);
            if (after == pinned_.begin() || std::prev(after)->first + std::prev(after)->second <= at) {
                books_.refuse(call, EFAULT, "the host memory is not pinned");
            }
            at = std::prev(after)->first + std::prev(after)->second;
        }
        return time;
    }

    const SimModel model_;
    std::mutex mutex_;
    SimClock clock_;
    SimHost host_{model_, clock_};
    Books books_;
    Address next_ = first_address;
    Timeline up_, down_, mapping_, pinning_, clearing_;
    std::map<std::uintptr_t, double> streams_ = {{0, 0.0}};  // 0 is the default stream
    std::uintptr_t last_stream_ = 0;
    double last_end_ = 0;
    std::map<const char*, std::size_t> pinned_;
    std::set<void*> host_blocks_;
};

}  // namespace

std::unique_ptr<Driver> make_sim_driver(const DriverOptions& options, const SimModel& model) {
    return std::make_unique<SimDriver>(options, model);
}

std::unique_ptr<Driver> make_sim_driver(const DriverOptions& options) {
    return make_sim_driver(options, SimModel{});
}

}  // namespace dormouse
