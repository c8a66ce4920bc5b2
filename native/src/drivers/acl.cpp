// The driver of Huawei's NPUs: AscendCL's virtual memory management (Atlas A2 and later), found at run time.
//
// What differs from CUDA: the owner of memory has access to a mapping without being granted it; a mapping is undone by
// its address alone and must be as large as its physical memory; asynchronous copies want host memory from
// aclrtMallocHost or pinned by aclrtHostRegisterV2 (CANN 8.5), else they may report nothing and copy wrong bytes.
//
// aclInit is called and aclFinalize never: others in this process (torch_npu) use the same library and live longer.
#include <cstdint>
#include <string>

#include "acl_api.hpp"
#include "acl_context.hpp"
#include "dormouse/driver.hpp"
#include "dormouse/error.hpp"

namespace dormouse {
namespace acl {
namespace {

void* pointer(Address address) {
    return reinterpret_cast<void*>(address);
}

// Device memory of this device, of pages of that kind.
PhysicalProperties device_memory(std::int32_t device, std::int32_t pages) {
    PhysicalProperties properties{};
    properties.handle_type = handle_type_none;
    properties.allocation_type = allocation_type_pinned;
    properties.memory_attribute = pages;
    properties.location = {static_cast<std::uint32_t>(device), location_type_device};
    return properties;
}

// Initialises the library, which somebody else may have done before.
std::int32_t open_device(const Api& api, int device) {
    const Error code = api.init(nullptr);
    if (code != success && code != repeat_initialize) api.fail(api.init.name(), code);
    return device;
}

class AclDriver final : public Driver {
   public:
    explicit AclDriver(const DriverOptions& options)
        : api_(options.library.empty() ? "libascendcl.so" : options.library),
          device_(open_device(api_, options.device)),
          huge_(device_memory(device_, hbm_huge)),
          normal_(device_memory(device_, hbm_normal)),
          context_(api_, device_) {
        const auto scope = enter();
        api_.check(api_.granularity, &huge_, granularity_minimum, &granularity_);
    }

    std::string_view name() const noexcept override { return "acl"; }

    std::string version() override {
        if (!api_.get_version.exists()) return "";
        std::int32_t major = 0;
        std::int32_t minor = 0;
        std::int32_t patch = 0;
        api_.check(api_.get_version, &major, &minor, &patch);
        return std::to_string(major) + "." + std::to_string(minor) + "." + std::to_string(patch);
    }

    std::string uuid() override { return ""; }
    std::size_t granularity() override { return granularity_; }

    MemoryInfo memory() override {
        const auto scope = enter();
        MemoryInfo info;
        api_.check(api_.memory_info, hbm_memory, &info.free, &info.total);
        return info;
    }

    Address reserve(std::size_t bytes) override {
        const auto scope = enter();
        void* address = nullptr;
        api_.check_room(bytes, api_.reserve, &address, bytes, 0, nullptr, reserve_flags);
        return reinterpret_cast<Address>(address);
    }

    void unreserve(Address address, std::size_t) override {
        const auto scope = enter();
        api_.check(api_.unreserve, pointer(address));
    }

    // Huge pages, and normal ones where those have run out: memory may be free and only be in small pieces. AscendCL's
    // own aclrtMalloc does the same (ACL_MEM_MALLOC_HUGE_FIRST), and a slower wake is better than none.
    Physical create(std::size_t bytes) override {
        const auto scope = enter();
        Handle handle = nullptr;
        Error code = api_.create(&handle, bytes, &huge_, 0);
        // If that fails too, for whatever reason, the first one tells the caller more.
        if (code == memory_allocation && api_.create(&handle, bytes, &normal_, 0) == success) code = success;
        if (code != success) api_.fail_room(bytes, api_.create.name(), code);
        return reinterpret_cast<Physical>(handle);
    }

    void release(Physical physical) override {
        const auto scope = enter();
        api_.check(api_.release, pointer(physical));
    }

    // No word in AscendCL's manuals promises it.
    bool mapping_keeps_memory() noexcept override { return false; }

    void map(Address address, std::size_t bytes, Physical physical) override {
        const auto scope = enter();
        api_.check_room(bytes, api_.map, pointer(address), bytes, 0, pointer(physical), 0);
    }

    void allow(Address, std::size_t) override {}

    void unmap(Address address, std::size_t) override {
        const auto scope = enter();
        api_.check(api_.unmap, pointer(address));
    }

    // Where priorities don't exist yet, a low one may be refused; a stream without it still copies.
    Stream create_stream(Priority priority) override {
        const auto scope = enter();
        StreamHandle stream = nullptr;
        if (priority == Priority::low && api_.stream_create(&stream, lowest_priority, 0) == success) return stream;
        api_.check_room(0, api_.stream_create, &stream, only_priority, 0);
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
        api_.check(api_.copy, pointer(to), bytes, from, bytes, host_to_device, stream);
    }

    void copy_to_host(void* to, Address from, std::size_t bytes, Stream stream) override {
        const auto scope = enter();
        api_.check(api_.copy, to, bytes, pointer(from), bytes, device_to_host, stream);
    }

    void synchronize(Stream stream) override {
        const auto scope = enter();
        api_.check(api_.stream_synchronize, stream);
    }

    void synchronize_device() override {
        const auto scope = enter();
        api_.check(api_.device_synchronize);
    }

    HostMemory& host() override { return posix_memory(); }
    bool can_pin() noexcept override { return api_.host_register.exists() && api_.host_unregister.exists(); }
    bool copies_pageable() noexcept override { return false; }

    void pin(void* address, std::size_t bytes) override {
        need_pinning();
        const auto scope = enter();
        api_.check(api_.host_register, address, bytes, host_register_pinned);
    }

    void unpin(void* address, std::size_t) override {
        need_pinning();
        const auto scope = enter();
        api_.check(api_.host_unregister, address);
    }

    void* host_alloc(std::size_t bytes) override {
        const auto scope = enter();
        void* address = nullptr;
        api_.check(api_.host_allocate, &address, bytes);
        return address;
    }

    void host_free(void* address) override {
        const auto scope = enter();
        api_.check(api_.host_free, address);
    }

    // A kernel for it would need Huawei's compiler.
    bool can_digest() noexcept override { return false; }

    void digest(std::span<const Range>, std::span<std::uint64_t>, Stream) override {
        throw illegal_state("acl: this driver makes no digests");
    }

   private:
    [[nodiscard]] DefaultContext::Scope enter() const { return DefaultContext::Scope(context_); }

    void need_pinning() {
        if (!can_pin()) throw illegal_state("acl: this version of CANN pins no memory that it did not allocate");
    }

    const Api api_;
    const std::int32_t device_;
    const PhysicalProperties huge_;
    const PhysicalProperties normal_;
    const DefaultContext context_;
    std::size_t granularity_ = 0;
};

}  // namespace
}  // namespace acl

std::unique_ptr<Driver> make_acl_driver(const DriverOptions& options) {
    return std::make_unique<acl::AclDriver>(options);
}

}  // namespace dormouse
