// A driver around another one that keeps the rules of copying as strictly as a GPU does, and fails on demand.
//
// Copies run at synchronize() and no earlier, so whoever reads or reuses a buffer before that moves wrong bytes. Host
// memory must be pinned, and a copy must lie within one registration, unless `pageable` is set. Broken rules are
// counted. fail("pin", n) makes the n-th call of that name from now on fail, and `times - 1` after it.
//
// With `timed` set it also keeps time: a virtual clock per thread, and one per stream. With `pulls` it can pull as
// well; then copies to the device have one engine, and pulls another. Until `clears_until` the first one stands still,
// or with `turn_seconds` takes turns with what clears.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "dormouse/driver.hpp"
#include "dormouse/error.hpp"
#include "dormouse/limits.hpp"

namespace dormouse {

// Calls by name, and which of them are to fail.
class Faults {
   public:
    void fail(const std::string& call, unsigned n, unsigned times = 1) {
        const std::lock_guard lock(mutex_);
        planned_[call] = {n, times};
    }
    void forgive() {
        const std::lock_guard lock(mutex_);
        planned_.clear();
    }
    unsigned calls(const std::string& call) {
        const std::lock_guard lock(mutex_);
        return calls_[call];
    }
    // Whether this call is to fail.
    bool hit(const std::string& call) {
        const std::lock_guard lock(mutex_);
        ++calls_[call];
        const auto it = planned_.find(call);
        if (it == planned_.end()) {
            return false;
        }
        auto& [wait, times] = it->second;
        if (wait > 1) {
            --wait;
            return false;
        }
        if (times > 0) {
            --times;
            return true;
        }
        return false;
    }

   private:
    std::mutex mutex_;
    std::map<std::string, std::pair<unsigned, unsigned>> planned_;
    std::map<std::string, unsigned> calls_;
};

class VirtualClock final : public Clock {
   public:
    double now() override { return time(); }
    void catch_up(double at) override { time() = std::max(time(), at); }
    void sleep(double seconds) override { time() += seconds; }
    static double& time() {
        static thread_local double mine = 0;
        return mine;
    }
};

class UnrulyHost final : public HostMemory {
   public:
    explicit UnrulyHost(Faults& faults) : faults_(faults) {}

    void* reserve(std::size_t bytes) override {
        if (faults_.hit("host_reserve")) {
            throw host_out_of_memory(bytes, 0, "injected");
        }
        void* address = posix_memory().reserve(bytes);
        address_space += bytes;
        return address;
    }
    void unreserve(void* address, std::size_t bytes) noexcept override {
        posix_memory().unreserve(address, bytes);
        address_space -= bytes;
        const std::lock_guard lock(mutex_);
        std::erase_if(committed_, [&](const auto& range) {
            return range.first >= address && range.first < static_cast<std::byte*>(address) + bytes;
        });
    }
    void commit(void* address, std::size_t bytes) override {
        if (faults_.hit("commit")) {
            throw host_out_of_memory(bytes, 0, "injected");
        }
        if (before_commit) {
            before_commit();
        }
        if (commit_seconds > 0) {
            VirtualClock::time() += commit_seconds;
        }
        posix_memory().commit(address, bytes);
        const std::lock_guard lock(mutex_);
        committed_.insert_or_assign(address, bytes);
    }
    void decommit(void* address, std::size_t bytes) noexcept override {
        if (before_decommit) {
            before_decommit();
        }
        posix_memory().decommit(address, bytes);
        const std::lock_guard lock(mutex_);
        committed_.erase(address);
    }
    void copy(void* to, const void* from, std::size_t bytes) override { posix_memory().copy(to, from, bytes); }
    std::uint64_t digest(const void* data, std::size_t bytes, std::uint64_t first_word) override {
        return posix_memory().digest(data, bytes, first_word);
    }
    std::size_t available() override { return room; }

    std::size_t committed() {
        const std::lock_guard lock(mutex_);
        std::size_t bytes = 0;
        for (const auto& range : committed_) {
            bytes += range.second;
        }
        return bytes;
    }

    std::size_t room = unlimited;  // what available() answers
    std::function<void()> before_commit;
    std::function<void()> before_decommit;
    double commit_seconds = 0;  // each commit takes
    std::atomic<std::size_t> address_space = 0;

   private:
    Faults& faults_;
    std::mutex mutex_;
    std::map<void*, std::size_t> committed_;
};

class UnrulyDriver final : public Driver {
   public:
    explicit UnrulyDriver(bool copies_pageable_memory)
        : inner_(make_host_driver({})), host_(faults), pageable(copies_pageable_memory) {}

    std::string_view name() const noexcept override { return "unruly"; }
    std::string version() override { return inner_->version(); }
    std::string uuid() override { return {}; }
    std::size_t granularity() override { return inner_->granularity(); }
    MemoryInfo memory() override { return inner_->memory(); }
    Address reserve(std::size_t bytes) override { return inner_->reserve(bytes); }
    void unreserve(Address address, std::size_t bytes) override { inner_->unreserve(address, bytes); }
    Physical create(std::size_t bytes) override { return inner_->create(bytes); }
    void release(Physical physical) override { inner_->release(physical); }
    bool mapping_keeps_memory() noexcept override { return inner_->mapping_keeps_memory(); }
    bool collects_late() noexcept override { return inner_->collects_late(); }
    void map(Address address, std::size_t bytes, Physical physical) override { inner_->map(address, bytes, physical); }
    void allow(Address address, std::size_t bytes) override { inner_->allow(address, bytes); }
    void unmap(Address address, std::size_t bytes) override { inner_->unmap(address, bytes); }

    Stream create_stream(Priority priority) override {
        check("create_stream");
        const std::lock_guard lock(mutex_);
        const Stream stream = inner_->create_stream(priority);
        streams_[stream];
        low_streams += priority == Priority::low ? 1u : 0u;
        return stream;
    }
    void destroy_stream(Stream stream) noexcept override {
        const std::lock_guard lock(mutex_);
        violations += streams_[stream].work.empty() ? 0u : 1u;
        streams_.erase(stream);
        inner_->destroy_stream(stream);
    }
    void copy_to_device(Address to, const void* from, std::size_t bytes, Stream stream) override {
        check("copy_to_device");
        queue(from, bytes, stream, [=, this] { inner_->copy_to_device(to, from, bytes, stream); }, &engine_);
    }
    bool can_pull() noexcept override { return pulls; }
    void pull(Address to, const void* from, std::size_t bytes, Stream stream) override {
        check("pull");
        queue(from, bytes, stream, [=, this] { inner_->copy_to_device(to, from, bytes, stream); }, &processors_);
    }
    bool idle(Stream stream) override {
        check("idle");
        std::vector<std::function<void()>> work;
        {
            const std::lock_guard lock(mutex_);
            Queue& queue = streams_.at(stream);
            if (queue.free_at > VirtualClock::time()) {
                return false;
            }
            work.swap(queue.work);
        }
        for (const auto& copy : work) {
            copy();
        }
        return true;
    }
    void copy_to_host(void* to, Address from, std::size_t bytes, Stream stream) override {
        check("copy_to_host");
        queue(to, bytes, stream, [=, this] { inner_->copy_to_host(to, from, bytes, stream); }, nullptr);
    }
    // Runs what is queued even when the call itself is to fail, as a device would.
    void synchronize(Stream stream) override {
        std::vector<std::function<void()>> work;
        {
            const std::lock_guard lock(mutex_);
            Queue& queue = streams_.at(stream);
            work.swap(queue.work);
            VirtualClock::time() = std::max(VirtualClock::time(), queue.free_at);
        }
        for (const auto& copy : work) {
            copy();
        }
        check("synchronize");
    }
    void synchronize_device() override {}

    HostMemory& host() override { return host_; }
    bool can_pin() noexcept override { return pins; }
    void pin(void* address, std::size_t bytes) override {
        check("pin");
        const std::lock_guard lock(mutex_);
        violations += pinned_.contains(address) ? 1u : 0u;
        pinned_[address] = bytes;
    }
    void unpin(void* address, std::size_t bytes) override {
        check("unpin");
        const std::lock_guard lock(mutex_);
        const auto it = pinned_.find(address);
        if (it == pinned_.end() || it->second != bytes) {
            ++violations;
            throw driver_error("unpin", 1, "not pinned like this");
        }
        pinned_.erase(it);
    }
    void* host_alloc(std::size_t bytes) override {
        check("host_alloc");
        void* address = inner_->host_alloc(bytes);
        const std::lock_guard lock(mutex_);
        pinned_[address] = bytes;
        return address;
    }
    void host_free(void* address) override {
        const std::lock_guard lock(mutex_);
        violations += pinned_.erase(address) == 1 ? 0u : 1u;
        inner_->host_free(address);
    }
    bool copies_pageable() noexcept override { return pageable; }
    bool can_digest() noexcept override { return false; }
    void digest(std::span<const Range>, std::span<std::uint64_t>, Stream) override {
        throw illegal_state("no digests here");
    }
    Clock& clock() override { return timed ? static_cast<Clock&>(clock_) : real_clock(); }

    UnrulyHost& memory_of_host() { return host_; }
    std::size_t pinned() {
        const std::lock_guard lock(mutex_);
        std::size_t bytes = 0;
        for (const auto& range : pinned_) {
            bytes += range.second;
        }
        return bytes;
    }
    std::size_t queued() {
        const std::lock_guard lock(mutex_);
        std::size_t copies = 0;
        for (const auto& [stream, queue] : streams_) {
            copies += queue.work.size();
        }
        return copies;
    }

    Faults faults;

   private:
    struct Queue {
        std::vector<std::function<void()>> work;
        double free_at = 0;
    };
    // What copies to the device, one after the other.
    struct Mover {
        double free_at = 0;
    };

    void check(const std::string& call) {
        if (faults.hit(call)) {
            throw driver_error(call, 999, "injected");
        }
    }

    void queue(const void* host, std::size_t bytes, Stream stream, std::function<void()> copy, Mover* mover) {
        const std::lock_guard lock(mutex_);
        if (!pageable && !within_one_registration(host, bytes)) {
            ++violations;
            throw driver_error("copy", 1, "host memory that is not pinned, or by two calls");
        }
        Queue& queue = streams_.at(stream);
        queue.free_at = std::max(queue.free_at, VirtualClock::time()) + copy_seconds;
        if (pulls && mover != nullptr) {
            const bool engine = mover == &engine_;
            const double begin = std::max({queue.free_at, mover->free_at, engine ? turn(queue.free_at) : 0.0});
            queue.free_at = begin + static_cast<double>(bytes) / (engine ? engine_rate : pull_rate);
            mover->free_at = queue.free_at;
        }
        queue.work.push_back(std::move(copy));
    }

    // When an engine that clears begins with a copy that came at `now`.
    double turn(double now) {
        if (turn_seconds == 0 || now >= clears_until) {
            return clears_until;
        }
        const bool in_its_turn = engine_.free_at >= now || std::exchange(lucky, false);
        return in_its_turn ? now : now + turn_seconds;
    }

    bool within_one_registration(const void* host, std::size_t bytes) {
        auto it = pinned_.upper_bound(const_cast<void*>(host));
        if (it == pinned_.begin()) {
            return false;
        }
        --it;
        const auto* begin = static_cast<const std::byte*>(it->first);
        return static_cast<const std::byte*>(host) + bytes <= begin + it->second;
    }

    std::unique_ptr<Driver> inner_;
    UnrulyHost host_;
    VirtualClock clock_;
    std::mutex mutex_;
    std::map<Stream, Queue> streams_;
    std::map<void*, std::size_t> pinned_;
    Mover engine_, processors_;

   public:
    const bool pageable;
    bool pins = true;
    bool timed = false;
    double copy_seconds = 0;  // each copy takes
    bool pulls = false;
    double engine_rate = 1e9;  // bytes per second, of copies to the device where it pulls
    double pull_rate = 0.9e9;
    double clears_until = 0;  // of the virtual clock
    double turn_seconds = 0;  // a copy that finds the engine without one waits so long while it clears,
    bool lucky = true;        // but the first comes in its turn
    std::atomic<unsigned> violations = 0;
    std::atomic<unsigned> low_streams = 0;
};

}  // namespace dormouse
