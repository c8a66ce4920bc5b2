// The driver of NVIDIA's devices: libcuda.so.1, found at run time.
//
// Every call enters the device's primary context (cuda_context.hpp), makes one call of the library and turns a code
// into an error. Nothing is remembered of a failure: a library that has failed for good says so again by itself.
#include <array>
#include <cstdio>

#include "cuda_api.hpp"
#include "cuda_context.hpp"
#include "cuda_digest.hpp"
#include "cuda_pull.hpp"
#include "dormouse/driver.hpp"
#include "dormouse/error.hpp"

namespace dormouse {
namespace cuda {
namespace {

// Initialises the library and finds a device that has what the pool stands on.
Device open_device(const Api& api, int ordinal) {
    api.check(api.init, 0U);
    Device device = 0;
    api.check(api.device_get, &device, ordinal);
    int virtual_memory = 0;
    api.check(api.device_attribute, &virtual_memory, attribute_virtual_memory, device);
    if (virtual_memory == 0) {
        throw driver_error(api.create.name(), error_not_supported, "the device has no virtual memory management");
    }
    return device;
}

// Device memory of this device; open to direct access by network cards where the device can do that.
AllocationProperties device_memory(const Api& api, Device device) {
    int rdma = 0;
    api.check(api.device_attribute, &rdma, attribute_rdma_with_virtual_memory, device);
    AllocationProperties properties{};
    properties.type = allocation_pinned;
    properties.requested_handle_types = handle_none;
    properties.location = {location_device, device};
    properties.rdma_capable = rdma != 0 ? 1 : 0;
    return properties;
}

class CudaDriver final : public Driver {
   public:
    explicit CudaDriver(const DriverOptions& options)
        : api_(options.library.empty() ? "libcuda.so.1" : options.library),
          device_(open_device(api_, options.device)),
          properties_(device_memory(api_, device_)),
          context_(api_, device_),
          digest_(api_, context_, device_),
          pull_(api_, context_, device_) {
        const auto scope = enter();
        api_.check(api_.granularity, &granularity_, &properties_, granularity_minimum);
    }

    std::string_view name() const noexcept override { return "cuda"; }

    std::string version() override {
        int version = 0;
        api_.check(api_.driver_version, &version);
        std::string text = std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
        if (const std::string problem = digest_.problem(); !problem.empty()) text += " (no digests: " + problem + ")";
        if (const std::string problem = pull_.problem(); !problem.empty()) text += " (no pulls: " + problem + ")";
        return text;
    }

    std::string uuid() override {
        Uuid uuid{};
        api_.check(api_.device_uuid, &uuid, device_);
        std::string text = "GPU";
        for (std::size_t i = 0; i < sizeof uuid.bytes; ++i) {
            std::array<char, 3> digits{};
            std::snprintf(digits.data(), digits.size(), "%02x", static_cast<unsigned>(uuid.bytes[i]));
            if (i == 0 || i == 4 || i == 6 || i == 8 || i == 10) text += '-';
            text += digits.data();
        }
        return text;
    }

    std::size_t granularity() override { return granularity_; }

    MemoryInfo memory() override {
        const auto scope = enter();
        MemoryInfo info;
        api_.check(api_.memory_info, &info.free, &info.total);
        return info;
    }

    Address reserve(std::size_t bytes) override {
        const auto scope = enter();
        Address address = 0;
        api_.check(api_.reserve, &address, bytes, 0, 0, 0);
        return address;
    }

    void unreserve(Address address, std::size_t bytes) override {
        const auto scope = enter();
        api_.check(api_.unreserve, address, bytes);
    }

    Physical create(std::size_t bytes) override {
        const auto scope = enter();
        Physical physical = 0;
        api_.check_room(bytes, api_.create, &physical, bytes, &properties_, 0);
        return physical;
    }

    void release(Physical physical) override {
        const auto scope = enter();
        api_.check(api_.release, physical);
    }

    bool mapping_keeps_memory() noexcept override { return true; }
    bool collects_late() noexcept override { return true; }

    void map(Address address, std::size_t bytes, Physical physical) override {
        const auto scope = enter();
        api_.check_room(bytes, api_.map, address, bytes, 0, physical, 0);
    }

    void allow(Address address, std::size_t bytes) override {
        const auto scope = enter();
        const Access access{properties_.location, access_read_write};
        api_.check_room(bytes, api_.set_access, address, bytes, &access, 1);
    }

    void unmap(Address address, std::size_t bytes) override {
        const auto scope = enter();
        api_.check(api_.unmap, address, bytes);
    }

    // The least priority is 0 on every device so far, which is what a stream has that asked for none.
    Stream create_stream(Priority priority) override {
        const auto scope = enter();
        int least = 0;
        int greatest = 0;
        if (priority == Priority::low) api_.check(api_.stream_priorities, &least, &greatest);
        StreamHandle stream = nullptr;
        api_.check_room(0, api_.stream_create, &stream, stream_non_blocking, least);
        return stream;
    }

    void destroy_stream(Stream stream) noexcept override {
        try {
            const auto scope = enter();
            api_.stream_destroy(stream);
        } catch (const error&) {
            // The library is shutting down: the stream is gone.
        }
    }

    void copy_to_device(Address to, const void* from, std::size_t bytes, Stream stream) override {
        const auto scope = enter();
        api_.check(api_.copy_to_device, to, from, bytes, stream);
    }

    void copy_to_host(void* to, Address from, std::size_t bytes, Stream stream) override {
        const auto scope = enter();
        api_.check(api_.copy_to_host, to, from, bytes, stream);
    }

    void synchronize(Stream stream) override {
        const auto scope = enter();
        api_.check(api_.stream_synchronize, stream);
    }

    void synchronize_device() override {
        const auto scope = enter();
        api_.check(api_.context_synchronize);
    }

    bool can_pull() noexcept override { return pull_.ready(); }

    void pull(Address to, const void* from, std::size_t bytes, Stream stream) override {
        pull_.run(to, from, bytes, stream);
    }

    bool idle(Stream stream) override {
        const auto scope = enter();
        return api_.check_done(api_.stream_query, stream);
    }

    HostMemory& host() override { return posix_memory(); }
    bool can_pin() noexcept override { return true; }
    bool copies_pageable() noexcept override { return false; }

    void pin(void* address, std::size_t bytes) override {
        const auto scope = enter();
        api_.check(api_.host_register, address, bytes, host_portable);
    }

    void unpin(void* address, std::size_t) override {
        const auto scope = enter();
        api_.check(api_.host_unregister, address);
    }

    void* host_alloc(std::size_t bytes) override {
        const auto scope = enter();
        void* address = nullptr;
        api_.check(api_.host_allocate, &address, bytes, host_portable);
        return address;
    }

    void host_free(void* address) override {
        const auto scope = enter();
        api_.check(api_.host_free, address);
    }

    bool can_digest() noexcept override { return digest_.ready(); }

    void digest(std::span<const Range> ranges, std::span<std::uint64_t> out, Stream stream) override {
        digest_.run(ranges, out, stream);
    }

   private:
    [[nodiscard]] PrimaryContext::Scope enter() const { return PrimaryContext::Scope(context_); }

    const Api api_;
    const Device device_;
    const AllocationProperties properties_;
    const PrimaryContext context_;
    DeviceDigest digest_;
    DevicePull pull_;
    std::size_t granularity_ = 0;
};

}  // namespace
}  // namespace cuda

std::unique_ptr<Driver> make_cuda_driver(const DriverOptions& options) {
    return std::make_unique<cuda::CudaDriver>(options);
}

}  // namespace dormouse
