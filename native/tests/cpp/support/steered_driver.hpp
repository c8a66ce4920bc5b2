// A driver with a hand on it: every call passes on to a real one, after a test had the chance to look, wait or throw.
#pragma once

#include <algorithm>
#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string_view>
#include <utility>

#include "dormouse/driver.hpp"
#include "dormouse/limits.hpp"

namespace dormouse::testing {

// What a test holds on to; it outlives the driver.
class Steering {
   public:
    using Hook = std::function<void(std::string_view call)>;

    // Called before each call of the driver (but destroy_stream), on its thread. What it throws, the call throws.
    void before(Hook hook) {
        const std::lock_guard lock(mutex_);
        hook_ = std::move(hook);
    }
    void call(std::string_view name) {
        Hook hook;
        {
            const std::lock_guard lock(mutex_);
            hook = hook_;
        }
        if (hook) {
            hook(name);
        }
    }

    // In place of the real one's, set before the driver is used.
    Clock* clock = nullptr;

    // What the host says it has left, at most.
    std::atomic<std::size_t> host_available{unlimited};

   private:
    std::mutex mutex_;
    Hook hook_;
};

class SteeredHost final : public HostMemory {
   public:
    SteeredHost(HostMemory& real, Steering& steering) : real_(real), steering_(steering) {}
    void* reserve(std::size_t bytes) override { return real_.reserve(bytes); }
    void unreserve(void* address, std::size_t bytes) noexcept override { real_.unreserve(address, bytes); }
    void commit(void* address, std::size_t bytes) override {
        steering_.call("host.commit");
        real_.commit(address, bytes);
    }
    void decommit(void* address, std::size_t bytes) noexcept override { real_.decommit(address, bytes); }
    void copy(void* to, const void* from, std::size_t bytes) override { real_.copy(to, from, bytes); }
    std::uint64_t digest(const void* data, std::size_t bytes, std::uint64_t first_word) override {
        return real_.digest(data, bytes, first_word);
    }
    std::size_t available() override { return std::min(real_.available(), steering_.host_available.load()); }

   private:
    HostMemory& real_;
    Steering& steering_;
};

class SteeredDriver final : public Driver {
   public:
    SteeredDriver(std::unique_ptr<Driver> real, std::shared_ptr<Steering> steering)
        : real_(std::move(real)), steering_(std::move(steering)), host_(real_->host(), *steering_) {}

    std::string_view name() const noexcept override { return real_->name(); }
    std::string version() override { return real_->version(); }
    std::string uuid() override { return real_->uuid(); }
    std::size_t granularity() override { return real_->granularity(); }
    MemoryInfo memory() override { return steered("memory").memory(); }
    Address reserve(std::size_t bytes) override { return steered("reserve").reserve(bytes); }
    void unreserve(Address address, std::size_t bytes) override { steered("unreserve").unreserve(address, bytes); }
    Physical create(std::size_t bytes) override { return steered("create").create(bytes); }
    void release(Physical physical) override { steered("release").release(physical); }
    bool mapping_keeps_memory() noexcept override { return real_->mapping_keeps_memory(); }
    bool collects_late() noexcept override { return real_->collects_late(); }
    void map(Address address, std::size_t bytes, Physical physical) override {
        steered("map").map(address, bytes, physical);
    }
    void allow(Address address, std::size_t bytes) override { steered("allow").allow(address, bytes); }
    void unmap(Address address, std::size_t bytes) override { steered("unmap").unmap(address, bytes); }
    Stream create_stream(Priority priority) override { return steered("create_stream").create_stream(priority); }
    void destroy_stream(Stream stream) noexcept override { real_->destroy_stream(stream); }
    void copy_to_device(Address to, const void* from, std::size_t bytes, Stream stream) override {
        steered("copy_to_device").copy_to_device(to, from, bytes, stream);
    }
    void copy_to_host(void* to, Address from, std::size_t bytes, Stream stream) override {
        steered("copy_to_host").copy_to_host(to, from, bytes, stream);
    }
    void synchronize(Stream stream) override { steered("synchronize").synchronize(stream); }
    void synchronize_device() override { steered("synchronize_device").synchronize_device(); }
    bool can_pull() noexcept override { return real_->can_pull(); }
    void pull(Address to, const void* from, std::size_t bytes, Stream stream) override {
        steered("pull").pull(to, from, bytes, stream);
    }
    bool idle(Stream stream) override { return steered("idle").idle(stream); }
    HostMemory& host() override { return host_; }
    bool can_pin() noexcept override { return real_->can_pin(); }
    void pin(void* address, std::size_t bytes) override { steered("pin").pin(address, bytes); }
    void unpin(void* address, std::size_t bytes) override { steered("unpin").unpin(address, bytes); }
    void* host_alloc(std::size_t bytes) override { return steered("host_alloc").host_alloc(bytes); }
    void host_free(void* address) override { steered("host_free").host_free(address); }
    bool copies_pageable() noexcept override { return real_->copies_pageable(); }
    bool can_digest() noexcept override { return real_->can_digest(); }
    void digest(std::span<const Range> ranges, std::span<std::uint64_t> out, Stream stream) override {
        steered("digest").digest(ranges, out, stream);
    }
    Clock& clock() override { return steering_->clock != nullptr ? *steering_->clock : real_->clock(); }

   private:
    Driver& steered(std::string_view call) {
        steering_->call(call);
        return *real_;
    }

    std::unique_ptr<Driver> real_;
    std::shared_ptr<Steering> steering_;
    SteeredHost host_;
};

}  // namespace dormouse::testing
