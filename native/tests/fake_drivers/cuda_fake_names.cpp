// Names: of errors, and of the library's own functions.
#include <dlfcn.h>

#include <cstring>
#include <string>
#include <string_view>

#include "cuda_fake_device.hpp"

using namespace fake;

namespace {

struct Name {
    int code;
    const char* name;
    const char* text;
};

constexpr Name names[] = {
    {0, "CUDA_SUCCESS", "no error"},
    {1, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {2, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {3, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {100, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {101, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {200, "CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"},
    {201, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {304, "CUDA_ERROR_OPERATING_SYSTEM", "OS call failed or operation not supported on this OS"},
    {400, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {401, "CUDA_ERROR_ILLEGAL_STATE", "the operation cannot be performed in the present state"},
    {500, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {600, "CUDA_ERROR_NOT_READY", "device not ready"},
    {700, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"},
    {712, "CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED", "part or all of the requested memory range is already mapped"},
    {713, "CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED", "pointer does not correspond to a registered memory region"},
    {716, "CUDA_ERROR_MISALIGNED_ADDRESS", "misaligned address"},
    {719, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
    {800, "CUDA_ERROR_NOT_PERMITTED", "operation not permitted"},
    {801, "CUDA_ERROR_NOT_SUPPORTED", "operation not supported"},
    {999, "CUDA_ERROR_UNKNOWN", "unknown error"},
};

Result name_of(const char* symbol, int code, const char** out, const char* Name::* field) {
    if (out == nullptr) return violate(invalid_value, "%s: no place for the answer", symbol);
    *out = nullptr;
    for (const Name& name : names)
        if (name.code == code) *out = name.*field;
    return *out == nullptr ? invalid_value : success;  // a driver may well meet a code that the library doesn't know
}

// One of this library's own exports; dlsym alone would also look into the libraries that it needs.
void* own_export(const std::string& name) {
    Dl_info own{};
    if (dladdr(reinterpret_cast<void*>(&fake::device), &own) == 0) return nullptr;
    void* const library = dlopen(own.dli_fname, RTLD_NOW | RTLD_NOLOAD);
    if (library == nullptr) return nullptr;
    void* found = dlsym(library, name.c_str());
    dlclose(library);
    Dl_info other{};
    if (found != nullptr && (dladdr(found, &other) == 0 || other.dli_fbase != own.dli_fbase)) found = nullptr;
    return found;
}

}  // namespace

FAKE_EXPORT Result cuGetErrorName(int error, const char** name) {
    FAKE_BEGIN(nothing);
    return name_of(__func__, error, name, &Name::name);
}

FAKE_EXPORT Result cuGetErrorString(int error, const char** text) {
    FAKE_BEGIN(nothing);
    return name_of(__func__, error, text, &Name::text);
}

FAKE_EXPORT Result cuGetProcAddress_v2(const char* name, void** function, int version, std::uint64_t flags,
                                       int* status) {
    FAKE_BEGIN(nothing);
    if (name == nullptr || function == nullptr || flags > 2 || version < 0)
        return violate(invalid_value, "cuGetProcAddress: no name, no place, version %d or flags %lu", version, flags);
    // The vendor's rule: names without a version; the version wanted is a number.
    const std::string_view wanted(name);
    *function = nullptr;
    if (wanted.starts_with("cu") && !wanted.ends_with("_v2")) {
        *function = own_export(std::string(wanted) + "_v2");
        if (*function == nullptr) *function = own_export(std::string(wanted));
    }
    if (status != nullptr) *status = *function == nullptr ? 1 : 0;
    return *function == nullptr ? not_found : success;
}
