// Start-up, the one device and its primary context.
#include <unistd.h>

#include <cstring>

#include "cuda_fake_device.hpp"

using namespace fake;

namespace {

Result check_device(const char* symbol, int ordinal) {
    return ordinal == 0 ? success : violate(invalid_device, "%s: there is no device %d", symbol, ordinal);
}

int attribute(int which) {
    switch (which) {
        case 1:
            return 1024;  // threads per block
        case 10:
            return 32;  // threads per warp
        case 16:
            return 132;  // multiprocessors
        case 39:
            return 2048;  // threads per multiprocessor
        case 40:
            return 3;  // copy engines
        case 75:
            return 9;  // compute capability, major
        case 76:
            return 0;  // and minor
        case 41:       // one address space for host and device
        case 91:       // the host's addresses of registered memory
        case 99:       // host memory can be registered
        case 102:      // virtual memory management
        case 103:      // handles can be file descriptors
        case 110:
            return 1;  // RDMA with virtual memory management
        default:
            return 0;
    }
}

}  // namespace

FAKE_EXPORT Result cuInit(unsigned flags) {
    FAKE_BEGIN(nothing);
    if (flags != 0) return violate(invalid_value, "cuInit: flags must be 0, not %u", flags);
    const std::lock_guard lock(device().mutex);
    device().process = getpid();
    return success;
}

FAKE_EXPORT Result cuDriverGetVersion(int* version) {
    FAKE_BEGIN(nothing);
    if (version == nullptr) return violate(invalid_value, "cuDriverGetVersion: no place for the answer");
    *version = driver_version;
    return success;
}

FAKE_EXPORT Result cuDeviceGetCount(int* count) {
    FAKE_BEGIN(init);
    if (count == nullptr) return violate(invalid_value, "cuDeviceGetCount: no place for the answer");
    *count = 1;
    return success;
}

FAKE_EXPORT Result cuDeviceGet(int* handle, int ordinal) {
    FAKE_BEGIN(init);
    if (handle == nullptr) return violate(invalid_value, "cuDeviceGet: no place for the answer");
    if (const Result refused = check_device(__func__, ordinal)) return refused;
    *handle = ordinal;
    return success;
}

FAKE_EXPORT Result cuDeviceGetAttribute(int* value, int which, int ordinal) {
    FAKE_BEGIN(init);
    if (const Result refused = check_device(__func__, ordinal)) return refused;
    if (value == nullptr || which < 1 || which > 200)
        return violate(invalid_value, "cuDeviceGetAttribute: attribute %d, or no place for it", which);
    *value = attribute_or(which, attribute(which));
    return success;
}

FAKE_EXPORT Result cuDeviceGetUuid_v2(Uuid* uuid, int ordinal) {
    FAKE_BEGIN(init);
    if (const Result refused = check_device(__func__, ordinal)) return refused;
    if (uuid == nullptr) return violate(invalid_value, "cuDeviceGetUuid: no place for the answer");
    for (std::uint8_t i = 0; i < 16; ++i) uuid->bytes[i] = static_cast<std::uint8_t>(i * 0x11);
    return success;
}

FAKE_EXPORT Result cuDevicePrimaryCtxRetain(Context** context, int ordinal) {
    FAKE_BEGIN(init);
    if (const Result refused = check_device(__func__, ordinal)) return refused;
    if (context == nullptr) return violate(invalid_value, "cuDevicePrimaryCtxRetain: no place for the answer");
    const std::lock_guard lock(device().mutex);
    if (!device().context) device().context = std::make_unique<Context>();
    ++device().context->retained;
    live("contexts", 1);
    *context = device().context.get();
    return success;
}

FAKE_EXPORT Result cuDevicePrimaryCtxRelease_v2(int ordinal) {
    FAKE_BEGIN(init);
    if (const Result refused = check_device(__func__, ordinal)) return refused;
    const std::lock_guard lock(device().mutex);
    auto& all = device();
    if (!all.context) return violate(invalid_context, "cuDevicePrimaryCtxRelease: the context is not retained");
    if (all.context->retained == 1 && !(all.streams.empty() && all.modules.empty() && all.allocations.empty()))
        return violate(invalid_context,
                       "cuDevicePrimaryCtxRelease: %zu streams, %zu modules, %zu allocations still live",
                       all.streams.size(), all.modules.size(), all.allocations.size());
    live("contexts", -1);
    if (--all.context->retained == 0) all.graveyard.push_back(std::move(all.context));
    return success;
}

FAKE_EXPORT Result cuCtxGetCurrent(Context** context) {
    FAKE_BEGIN(init);
    if (context == nullptr) return violate(invalid_value, "cuCtxGetCurrent: no place for the answer");
    const std::lock_guard lock(device().mutex);
    *context = current_context();
    return success;
}

FAKE_EXPORT Result cuCtxSetCurrent(Context* context) {
    FAKE_BEGIN(init);
    const std::lock_guard lock(device().mutex);
    if (context != nullptr && context != device().context.get())
        return violate(invalid_context, "cuCtxSetCurrent: no such context");
    set_current_context(context);
    return success;
}

FAKE_EXPORT Result cuCtxGetStreamPriorityRange(int* least, int* greatest) {
    FAKE_BEGIN(context);
    if (least != nullptr) *least = 0;
    if (greatest != nullptr) *greatest = -5;
    return success;
}

FAKE_EXPORT Result cuMemGetInfo_v2(std::size_t* free, std::size_t* total) {
    FAKE_BEGIN(context);
    if (free == nullptr || total == nullptr) return violate(invalid_value, "cuMemGetInfo: no place for the answer");
    const Memory now = memory();
    *free = now.free;
    *total = now.total;
    return success;
}
