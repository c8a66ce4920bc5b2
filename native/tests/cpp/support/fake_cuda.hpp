// The fake libcuda.so.1 as its own tests see it: every function by name, and a fixture with a device ready for use.
#pragma once

#include <dlfcn.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <cstdlib>

#include "cuda_fake_abi.hpp"
#include "fake_control.h"

namespace fake_cuda {

using fake::Access;
using fake::Prop;
using fake::Uuid;
using u64 = std::uint64_t;
using Opaque = void*;

// Every function that the vendor's library must have, with the types of the vendor's header.
// clang-format off
#define CUDA_SYMBOLS(X) \
    X(cuInit, int(unsigned)) \
    X(cuDriverGetVersion, int(int*)) \
    X(cuDeviceGetCount, int(int*)) \
    X(cuDeviceGet, int(int*, int)) \
    X(cuDeviceGetAttribute, int(int*, int, int)) \
    X(cuDeviceGetUuid_v2, int(Uuid*, int)) \
    X(cuDevicePrimaryCtxRetain, int(Opaque*, int)) \
    X(cuDevicePrimaryCtxRelease_v2, int(int)) \
    X(cuCtxGetCurrent, int(Opaque*)) \
    X(cuCtxSetCurrent, int(Opaque)) \
    X(cuCtxSynchronize, int()) \
    X(cuCtxGetStreamPriorityRange, int(int*, int*)) \
    X(cuMemGetInfo_v2, int(std::size_t*, std::size_t*)) \
    X(cuMemGetAllocationGranularity, int(std::size_t*, const Prop*, int)) \
    X(cuMemAddressReserve, int(u64*, std::size_t, std::size_t, u64, unsigned long long)) \
    X(cuMemAddressFree, int(u64, std::size_t)) \
    X(cuMemCreate, int(u64*, std::size_t, const Prop*, unsigned long long)) \
    X(cuMemRelease, int(u64)) \
    X(cuMemMap, int(u64, std::size_t, std::size_t, u64, unsigned long long)) \
    X(cuMemUnmap, int(u64, std::size_t)) \
    X(cuMemSetAccess, int(u64, std::size_t, const Access*, std::size_t)) \
    X(cuMemAlloc_v2, int(u64*, std::size_t)) \
    X(cuMemFree_v2, int(u64)) \
    X(cuMemHostAlloc, int(void**, std::size_t, unsigned)) \
    X(cuMemFreeHost, int(void*)) \
    X(cuMemHostRegister_v2, int(void*, std::size_t, unsigned)) \
    X(cuMemHostUnregister, int(void*)) \
    X(cuMemcpyHtoDAsync_v2, int(u64, const void*, std::size_t, Opaque)) \
    X(cuMemcpyDtoHAsync_v2, int(void*, u64, std::size_t, Opaque)) \
    X(cuMemsetD8Async, int(u64, unsigned char, std::size_t, Opaque)) \
    X(cuStreamCreate, int(Opaque*, unsigned)) \
    X(cuStreamCreateWithPriority, int(Opaque*, unsigned, int)) \
    X(cuStreamSynchronize, int(Opaque)) \
    X(cuStreamQuery, int(Opaque)) \
    X(cuStreamDestroy_v2, int(Opaque)) \
    X(cuModuleLoadData, int(Opaque*, const void*)) \
    X(cuModuleUnload, int(Opaque)) \
    X(cuModuleGetFunction, int(Opaque*, Opaque, const char*)) \
    X(cuLaunchKernel, int(Opaque, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, Opaque, void**, void**)) \
    X(cuGetErrorName, int(int, const char**)) \
    X(cuGetErrorString, int(int, const char**)) \
    X(cuGetProcAddress_v2, int(const char*, void**, int, u64, int*))

#define CONTROL_SYMBOLS(X) \
    X(fake_reset) \
    X(fake_fail) \
    X(fake_heal) \
    X(fake_calls) \
    X(fake_call_name) \
    X(fake_violations) \
    X(fake_last_violation) \
    X(fake_live) \
    X(fake_squat) \
    X(fake_stall) \
    X(fake_copy_rate)
// clang-format on

inline void* library() {
    static void* const handle = [] {
        const char* path = std::getenv("FAKE_LIBCUDA");
#ifdef FAKE_LIBCUDA_PATH
        if (path == nullptr) path = FAKE_LIBCUDA_PATH;
#endif
        if (path == nullptr) return static_cast<void*>(nullptr);
        return dlopen(path, RTLD_NOW | RTLD_LOCAL);
    }();
    return handle;
}

template <class F>
F* find(const char* name) {
    auto* const function = reinterpret_cast<F*>(dlsym(library(), name));
    if (function == nullptr) ADD_FAILURE() << "the fake lacks " << name;
    return function;
}

struct Cuda {
#define MEMBER(name, ...) std::add_pointer_t<__VA_ARGS__> name = find<__VA_ARGS__>(#name);
    CUDA_SYMBOLS(MEMBER)
#undef MEMBER
#define MEMBER(name) decltype(&::name) name = find<decltype(::name)>(#name);
    CONTROL_SYMBOLS(MEMBER)
#undef MEMBER
};

// What fake_live can be asked for.
inline constexpr std::array kinds{"handles", "mappings",    "reservations", "pinned",  "streams",
                                  "bytes",   "allocations", "host",         "modules", "contexts"};

inline constexpr std::size_t MiB = std::size_t{1} << 20;
inline constexpr std::size_t granule = 2 * MiB;
inline constexpr std::size_t capacity = 64 * MiB;
inline constexpr const char* ptx =
    ".version 7.0\n.target sm_70\n.address_size 64\n.visible .entry dormouse_digest(\n.param .u64 a) { ret; }\n";

inline constexpr const char* pull_ptx =
    ".version 7.0\n.target sm_70\n.address_size 64\n.visible .entry dormouse_pull(\n.param .u64 a) { ret; }\n";

inline Prop pinned_on(int id) {
    Prop prop{};
    prop.type = 1;
    prop.location = {1, id};
    return prop;
}
inline const Prop device_prop = pinned_on(0);

inline unsigned char* bytes_at(u64 address) {
    return reinterpret_cast<unsigned char*>(address);
}

// Whether this process may read (write) a byte: the kernel is asked, so that no signal is raised.
inline bool readable(u64 address) {
    std::array<int, 2> ends{};
    if (pipe(ends.data()) != 0) return false;
    const bool fine = write(ends[1], bytes_at(address), 1) == 1;
    close(ends[0]);
    close(ends[1]);
    return fine;
}
inline bool writable(u64 address) {
    std::array<int, 2> ends{};
    const char byte = 7;
    if (pipe(ends.data()) != 0) return false;
    const bool fine = write(ends[1], &byte, 1) == 1 && read(ends[0], bytes_at(address), 1) == 1;
    close(ends[0]);
    close(ends[1]);
    return fine;
}

class FakeCuda : public testing::Test {
   protected:
    void SetUp() override {
        ASSERT_NE(library(), nullptr) << "no fake to load; set FAKE_LIBCUDA. " << dlerror();
        cu.fake_reset(capacity);
        ASSERT_EQ(cu.cuInit(0), 0);
        ASSERT_EQ(cu.cuDevicePrimaryCtxRetain(&context, 0), 0);
        ASSERT_EQ(cu.cuCtxSetCurrent(context), 0);
    }
    void TearDown() override { cu.fake_reset(capacity); }

    void expect_refused(int expected, int answered, const char* expression, int line) {
        EXPECT_EQ(answered, expected) << expression << ", line " << line;
        EXPECT_EQ(cu.fake_violations(), violations + 1) << expression << ", line " << line;
        EXPECT_STRNE(cu.fake_last_violation(), "") << expression << ", line " << line;
        violations = cu.fake_violations();
    }
    u64 reserve(std::size_t bytes) {
        u64 address = 0;
        EXPECT_EQ(cu.cuMemAddressReserve(&address, bytes, 0, 0, 0), 0);
        return address;
    }
    u64 create(std::size_t bytes) {
        u64 handle = 0;
        EXPECT_EQ(cu.cuMemCreate(&handle, bytes, &device_prop, 0), 0);
        return handle;
    }
    int allow(u64 address, std::size_t bytes, int flags = 3) {
        const Access access{{1, 0}, flags};
        return cu.cuMemSetAccess(address, bytes, &access, 1);
    }
    // Reserved, created, mapped and accessible.
    u64 usable(std::size_t bytes) {
        const u64 address = reserve(bytes);
        EXPECT_EQ(cu.cuMemMap(address, bytes, 0, create(bytes), 0), 0);
        EXPECT_EQ(allow(address, bytes), 0);
        return address;
    }
    unsigned char* host(std::size_t bytes) {
        void* place = nullptr;
        EXPECT_EQ(cu.cuMemHostAlloc(&place, bytes, 0), 0);
        return static_cast<unsigned char*>(place);
    }
    Opaque stream() {
        Opaque made = nullptr;
        EXPECT_EQ(cu.cuStreamCreate(&made, 1), 0);
        return made;
    }
    Opaque kernel(const char* text = ptx, const char* entry = "dormouse_digest") {
        Opaque module = nullptr, function = nullptr;
        EXPECT_EQ(cu.cuModuleLoadData(&module, text), 0);
        EXPECT_EQ(cu.cuModuleGetFunction(&function, module, entry), 0);
        return function;
    }
    Opaque pull_kernel() { return kernel(pull_ptx, "dormouse_pull"); }
    int pull(Opaque function, u64 to, u64 from, u64 vectors, Opaque on) {
        std::array<void*, 3> parameters{&to, &from, &vectors};
        return cu.cuLaunchKernel(function, 4, 1, 1, 512, 1, 1, 0, on, parameters.data(), nullptr);
    }
    static u64 at(const void* place) { return reinterpret_cast<u64>(place); }
    int launch(Opaque function, u64 address, u64 words, u64 first, u64 out, Opaque on, unsigned grid = 4,
               unsigned block = 256) {
        std::array<void*, 4> parameters{&address, &words, &first, &out};
        return cu.cuLaunchKernel(function, grid, 1, 1, block, 1, 1, 0, on, parameters.data(), nullptr);
    }

    Cuda cu;
    Opaque context = nullptr;
    unsigned long violations = 0;
};

#define REFUSED(code, expression) expect_refused(code, expression, #expression, __LINE__)
#define FINE(expression) EXPECT_EQ(expression, 0) << cu.fake_last_violation()

}  // namespace fake_cuda
