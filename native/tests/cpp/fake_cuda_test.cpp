// The fake libcuda.so.1 enforces the vendor's rules: each is broken here once, and the fake must refuse and count it.
#include <dlfcn.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <type_traits>
#include <vector>

#include "cuda_fake_abi.hpp"
#include "dormouse/digest.hpp"
#include "fake_control.h"

namespace {

using fake::Access;
using fake::Prop;
using fake::Uuid;
using u64 = std::uint64_t;
using Opaque = void*;

void* library() {
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

#define SYMBOL(name, ...) std::add_pointer_t<__VA_ARGS__> name = find<__VA_ARGS__>(#name)

// The library as a program sees it; the types are those of the vendor's header.
struct Cuda {
    SYMBOL(cuInit, int(unsigned));
    SYMBOL(cuDriverGetVersion, int(int*));
    SYMBOL(cuDeviceGetCount, int(int*));
    SYMBOL(cuDeviceGet, int(int*, int));
    SYMBOL(cuDeviceGetAttribute, int(int*, int, int));
    SYMBOL(cuDeviceGetUuid_v2, int(Uuid*, int));
    SYMBOL(cuDevicePrimaryCtxRetain, int(Opaque*, int));
    SYMBOL(cuDevicePrimaryCtxRelease_v2, int(int));
    SYMBOL(cuCtxGetCurrent, int(Opaque*));
    SYMBOL(cuCtxSetCurrent, int(Opaque));
    SYMBOL(cuCtxSynchronize, int());
    SYMBOL(cuCtxGetStreamPriorityRange, int(int*, int*));
    SYMBOL(cuMemGetInfo_v2, int(std::size_t*, std::size_t*));
    SYMBOL(cuMemGetAllocationGranularity, int(std::size_t*, const Prop*, int));
    SYMBOL(cuMemAddressReserve, int(u64*, std::size_t, std::size_t, u64, unsigned long long));
    SYMBOL(cuMemAddressFree, int(u64, std::size_t));
    SYMBOL(cuMemCreate, int(u64*, std::size_t, const Prop*, unsigned long long));
    SYMBOL(cuMemRelease, int(u64));
    SYMBOL(cuMemMap, int(u64, std::size_t, std::size_t, u64, unsigned long long));
    SYMBOL(cuMemUnmap, int(u64, std::size_t));
    SYMBOL(cuMemSetAccess, int(u64, std::size_t, const Access*, std::size_t));
    SYMBOL(cuMemAlloc_v2, int(u64*, std::size_t));
    SYMBOL(cuMemFree_v2, int(u64));
    SYMBOL(cuMemHostAlloc, int(void**, std::size_t, unsigned));
    SYMBOL(cuMemFreeHost, int(void*));
    SYMBOL(cuMemHostRegister_v2, int(void*, std::size_t, unsigned));
    SYMBOL(cuMemHostUnregister, int(void*));
    SYMBOL(cuMemcpyHtoDAsync_v2, int(u64, const void*, std::size_t, Opaque));
    SYMBOL(cuMemcpyDtoHAsync_v2, int(void*, u64, std::size_t, Opaque));
    SYMBOL(cuMemsetD8Async, int(u64, unsigned char, std::size_t, Opaque));
    SYMBOL(cuStreamCreate, int(Opaque*, unsigned));
    SYMBOL(cuStreamCreateWithPriority, int(Opaque*, unsigned, int));
    SYMBOL(cuStreamSynchronize, int(Opaque));
    SYMBOL(cuStreamDestroy_v2, int(Opaque));
    SYMBOL(cuModuleLoadData, int(Opaque*, const void*));
    SYMBOL(cuModuleUnload, int(Opaque));
    SYMBOL(cuModuleGetFunction, int(Opaque*, Opaque, const char*));
    SYMBOL(cuLaunchKernel,
           int(Opaque, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, Opaque, void**, void**));
    SYMBOL(cuGetErrorName, int(int, const char**));
    SYMBOL(cuGetErrorString, int(int, const char**));
    SYMBOL(cuGetProcAddress_v2, int(const char*, void**, int, u64, int*));

    SYMBOL(fake_reset, void(std::size_t));
    SYMBOL(fake_fail, void(const char*, unsigned, int, unsigned));
    SYMBOL(fake_calls, unsigned long(const char*));
    SYMBOL(fake_call_name, const char*(unsigned long));
    SYMBOL(fake_violations, unsigned long());
    SYMBOL(fake_last_violation, const char*());
    SYMBOL(fake_live, unsigned long(const char*));
    SYMBOL(fake_squat, void(std::size_t));
    SYMBOL(fake_copy_rate, void(double));
};

constexpr std::size_t MiB = std::size_t{1} << 20;
constexpr std::size_t granule = 2 * MiB;
constexpr std::size_t capacity = 64 * MiB;
constexpr const char* ptx =
    ".version 7.0\n.target sm_70\n.address_size 64\n.visible .entry dormouse_digest(\n.param .u64 a) { ret; }\n";

Prop pinned_on(int id) {
    Prop prop{};
    prop.type = 1;
    prop.location = {1, id};
    return prop;
}
const Prop device_prop = pinned_on(0);

unsigned char* bytes_at(u64 address) {
    return reinterpret_cast<unsigned char*>(address);
}

// Whether this process may read (write) a byte: the kernel is asked, so that no signal is raised.
bool readable(u64 address) {
    std::array<int, 2> ends{};
    if (pipe(ends.data()) != 0) return false;
    const bool fine = write(ends[1], bytes_at(address), 1) == 1;
    close(ends[0]);
    close(ends[1]);
    return fine;
}
bool writable(u64 address) {
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
    Opaque kernel() {
        Opaque module = nullptr, function = nullptr;
        EXPECT_EQ(cu.cuModuleLoadData(&module, ptx), 0);
        EXPECT_EQ(cu.cuModuleGetFunction(&function, module, "dormouse_digest"), 0);
        return function;
    }
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

TEST_F(FakeCuda, NothingWorksBeforeInit) {
    cu.fake_reset(capacity);
    int number = 0;
    u64 out = 0;
    Opaque opaque = nullptr;
    REFUSED(3, cu.cuDeviceGetCount(&number));
    REFUSED(3, cu.cuDeviceGet(&number, 0));
    REFUSED(3, cu.cuDevicePrimaryCtxRetain(&opaque, 0));
    REFUSED(3, cu.cuMemAddressReserve(&out, granule, 0, 0, 0));
    REFUSED(3, cu.cuMemCreate(&out, granule, &device_prop, 0));
    REFUSED(3, cu.cuMemAlloc_v2(&out, 8));
    REFUSED(3, cu.cuCtxSynchronize());
    REFUSED(1, cu.cuInit(1));
    FINE(cu.cuDriverGetVersion(&number));
    EXPECT_EQ(number, 12080);
}

TEST_F(FakeCuda, ContextBoundCallsWantACurrentContextOnTheirThread) {
    std::thread([&] {
        u64 out = 0;
        std::size_t size = 0;
        int number = 0;
        void* place = nullptr;
        Opaque opaque = &size;
        FINE(cu.cuCtxGetCurrent(&opaque));
        EXPECT_EQ(opaque, nullptr);
        REFUSED(201, cu.cuMemGetInfo_v2(&size, &size));
        REFUSED(201, cu.cuMemAlloc_v2(&out, 8));
        REFUSED(201, cu.cuMemFree_v2(0));
        REFUSED(201, cu.cuMemHostAlloc(&place, 8, 0));
        REFUSED(201, cu.cuMemFreeHost(place));
        REFUSED(201, cu.cuMemHostRegister_v2(&out, 8, 0));
        REFUSED(201, cu.cuMemHostUnregister(&out));
        REFUSED(201, cu.cuMemcpyHtoDAsync_v2(0, place, 8, nullptr));
        REFUSED(201, cu.cuMemcpyDtoHAsync_v2(place, 0, 8, nullptr));
        REFUSED(201, cu.cuMemsetD8Async(0, 0, 8, nullptr));
        REFUSED(201, cu.cuStreamCreate(&opaque, 1));
        REFUSED(201, cu.cuStreamCreateWithPriority(&opaque, 1, 0));
        REFUSED(201, cu.cuStreamSynchronize(nullptr));
        REFUSED(201, cu.cuStreamDestroy_v2(nullptr));
        REFUSED(201, cu.cuCtxSynchronize());
        REFUSED(201, cu.cuCtxGetStreamPriorityRange(&number, &number));
        REFUSED(201, cu.cuModuleLoadData(&opaque, ptx));
        REFUSED(201, launch(nullptr, 0, 0, 0, 0, nullptr));
        FINE(cu.cuCtxSetCurrent(context));
        FINE(cu.cuMemGetInfo_v2(&size, &size));
    }).join();
}

TEST_F(FakeCuda, AReleasedContextIsGone) {
    Opaque second = nullptr, now = nullptr;
    FINE(cu.cuDevicePrimaryCtxRetain(&second, 0));
    EXPECT_EQ(second, context);
    FINE(cu.cuDevicePrimaryCtxRelease_v2(0));
    const Opaque held = stream();
    REFUSED(201, cu.cuDevicePrimaryCtxRelease_v2(0));  // a stream still lives
    FINE(cu.cuStreamDestroy_v2(held));
    FINE(cu.cuDevicePrimaryCtxRelease_v2(0));
    REFUSED(201, cu.cuDevicePrimaryCtxRelease_v2(0));
    REFUSED(201, cu.cuCtxSynchronize());
    REFUSED(201, cu.cuCtxSetCurrent(context));
    FINE(cu.cuCtxGetCurrent(&now));
    EXPECT_EQ(now, nullptr);
}

TEST_F(FakeCuda, ThereIsOneDevice) {
    int number = 0;
    Uuid uuid{};
    Opaque opaque = nullptr;
    FINE(cu.cuDeviceGetCount(&number));
    EXPECT_EQ(number, 1);
    FINE(cu.cuDeviceGet(&number, 0));
    FINE(cu.cuDeviceGetAttribute(&number, 102, 0));
    EXPECT_EQ(number, 1);
    FINE(cu.cuDeviceGetUuid_v2(&uuid, 0));
    EXPECT_EQ(uuid.bytes[15], 0xff);
    REFUSED(101, cu.cuDeviceGet(&number, 1));
    REFUSED(101, cu.cuDeviceGetAttribute(&number, 102, 1));
    REFUSED(101, cu.cuDeviceGetUuid_v2(&uuid, -1));
    REFUSED(101, cu.cuDevicePrimaryCtxRetain(&opaque, 1));
    REFUSED(101, cu.cuDevicePrimaryCtxRelease_v2(1));
    REFUSED(1, cu.cuDeviceGetAttribute(&number, 0, 0));
}

TEST_F(FakeCuda, AReservationIsGranularAndFreedWholeAndEmpty) {
    u64 address = 0;
    REFUSED(1, cu.cuMemAddressReserve(&address, granule + 4096, 0, 0, 0));
    REFUSED(1, cu.cuMemAddressReserve(&address, 0, 0, 0, 0));
    REFUSED(1, cu.cuMemAddressReserve(&address, granule, 3 * granule, 0, 0));
    REFUSED(1, cu.cuMemAddressReserve(&address, granule, 0, 0, 1));
    FINE(cu.cuMemAddressReserve(&address, 4 * granule, 16 * MiB, 0, 0));
    EXPECT_EQ(address % (16 * MiB), 0U);
    EXPECT_FALSE(readable(address));
    EXPECT_EQ(cu.fake_live("reservations"), 1U);
    const u64 handle = create(granule);
    FINE(cu.cuMemMap(address + granule, granule, 0, handle, 0));
    REFUSED(1, cu.cuMemAddressFree(address, 4 * granule));  // mapped
    FINE(cu.cuMemUnmap(address + granule, granule));
    REFUSED(1, cu.cuMemAddressFree(address, 2 * granule));  // a part
    REFUSED(1, cu.cuMemAddressFree(address + granule, 3 * granule));
    FINE(cu.cuMemAddressFree(address, 4 * granule));
    REFUSED(1, cu.cuMemAddressFree(address, 4 * granule));  // twice
    EXPECT_EQ(cu.fake_live("reservations"), 0U);
}

TEST_F(FakeCuda, PropertiesOfPhysicalMemoryMustBeExact) {
    u64 handle = 0;
    const auto with = [&](auto change) {
        Prop prop = device_prop;
        change(prop);
        return cu.cuMemCreate(&handle, granule, &prop, 0);
    };
    REFUSED(1, with([](Prop& p) { p.type = 0; }));
    REFUSED(1, with([](Prop& p) { p.location.type = 2; }));
    REFUSED(1, with([](Prop& p) { p.location.id = 1; }));
    REFUSED(1, with([](Prop& p) { p.win32 = &p; }));
    REFUSED(1, with([](Prop& p) { p.compression = 1; }));
    REFUSED(1, with([](Prop& p) { p.rdma = 2; }));
    REFUSED(1, with([](Prop& p) { p.usage = 1; }));
    REFUSED(1, with([](Prop& p) { p.reserved[3] = 1; }));
    REFUSED(801, with([](Prop& p) { p.handle_types = 8; }));
    REFUSED(1, cu.cuMemCreate(&handle, granule, nullptr, 0));
    REFUSED(1, cu.cuMemCreate(&handle, granule + 1, &device_prop, 0));
    REFUSED(1, cu.cuMemCreate(&handle, 0, &device_prop, 0));
    REFUSED(1, cu.cuMemCreate(&handle, granule, &device_prop, 1));
    FINE(with([](Prop& p) { p.rdma = 1; }));
    std::size_t size = 0;
    FINE(cu.cuMemGetAllocationGranularity(&size, &device_prop, 0));
    EXPECT_EQ(size, granule);
    REFUSED(1, cu.cuMemGetAllocationGranularity(&size, &device_prop, 2));
}

TEST_F(FakeCuda, AMappingIsWholeAndLiesOnFreeReservedSpace) {
    const u64 address = reserve(8 * granule);
    const u64 one = create(granule), two = create(2 * granule);
    REFUSED(1, cu.cuMemMap(address + 4096, granule, 0, one, 0));
    REFUSED(1, cu.cuMemMap(address, 2 * granule, granule, two, 0));  // offset
    REFUSED(1, cu.cuMemMap(address, granule, 0, two, 0));            // a part of a handle
    REFUSED(1, cu.cuMemMap(address, 2 * granule, 0, one, 0));
    REFUSED(1, cu.cuMemMap(address, granule, 0, one, 1));
    REFUSED(1, cu.cuMemMap(address, granule, 0, 12345, 0));
    REFUSED(1, cu.cuMemMap(address + 7 * granule, 2 * granule, 0, two, 0));  // over the end
    REFUSED(1, cu.cuMemMap(address + 64 * granule, granule, 0, one, 0));
    FINE(cu.cuMemMap(address, 2 * granule, 0, two, 0));
    REFUSED(1, cu.cuMemMap(address + granule, granule, 0, one, 0));  // mapped already
    FINE(cu.cuMemMap(address + 2 * granule, granule, 0, one, 0));
    EXPECT_EQ(cu.fake_live("mappings"), 2U);
    REFUSED(1, cu.cuMemUnmap(address, granule));
    REFUSED(1, cu.cuMemUnmap(address + granule, granule));
    REFUSED(1, cu.cuMemUnmap(address, 4 * granule));  // a hole behind
    FINE(cu.cuMemUnmap(address, 3 * granule));        // several at once
    REFUSED(1, cu.cuMemUnmap(address, 2 * granule));
    EXPECT_EQ(cu.fake_live("mappings"), 0U);
}

TEST_F(FakeCuda, NoAccessBeforeItWasSet) {
    const u64 address = reserve(2 * granule);
    const u64 handle = create(granule);
    unsigned char* const buffer = host(4096);
    FINE(cu.cuMemMap(address, granule, 0, handle, 0));
    EXPECT_FALSE(readable(address));
    REFUSED(1, cu.cuMemcpyDtoHAsync_v2(buffer, address, 4096, nullptr));
    REFUSED(1, cu.cuMemcpyHtoDAsync_v2(address, buffer, 4096, nullptr));
    REFUSED(1, cu.cuMemsetD8Async(address, 0, 4096, nullptr));
    const Access wrong_type{{2, 0}, 3}, wrong_id{{1, 1}, 3}, wrong_flags{{1, 0}, 2}, right{{1, 0}, 3};
    REFUSED(1, cu.cuMemSetAccess(address, granule, &wrong_type, 1));
    REFUSED(1, cu.cuMemSetAccess(address, granule, &wrong_id, 1));
    REFUSED(1, cu.cuMemSetAccess(address, granule, &wrong_flags, 1));
    REFUSED(1, cu.cuMemSetAccess(address, granule, &right, 0));
    REFUSED(1, cu.cuMemSetAccess(address, granule, nullptr, 1));
    REFUSED(1, cu.cuMemSetAccess(address, 2 * granule, &right, 1));  // half of it is not mapped
    REFUSED(1, cu.cuMemSetAccess(address, 4096, &right, 1));
    FINE(allow(address, granule, 1));
    EXPECT_TRUE(readable(address));
    EXPECT_FALSE(writable(address));
    FINE(cu.cuMemcpyDtoHAsync_v2(buffer, address, 4096, nullptr));
    REFUSED(1, cu.cuMemcpyHtoDAsync_v2(address, buffer, 4096, nullptr));
    FINE(cu.cuCtxSynchronize());
    FINE(allow(address, granule));
    EXPECT_TRUE(writable(address));
    REFUSED(1, cu.cuMemcpyHtoDAsync_v2(address + granule - 4095, buffer, 4096, nullptr));  // over its end
    // Unmapped and mapped again, it must be asked for anew.
    FINE(cu.cuMemUnmap(address, granule));
    EXPECT_FALSE(readable(address));
    FINE(cu.cuMemMap(address, granule, 0, handle, 0));
    EXPECT_FALSE(readable(address));
}

TEST_F(FakeCuda, NewMemoryIsPoisonedEachTimeItIsCreated) {
    for (int round = 0; round < 2; ++round) {
        const u64 address = reserve(granule);
        const u64 handle = create(granule);
        FINE(cu.cuMemMap(address, granule, 0, handle, 0));
        FINE(allow(address, granule));
        const std::vector<unsigned char> poison(granule, FAKE_POISON);
        EXPECT_EQ(std::memcmp(bytes_at(address), poison.data(), granule), 0);
        std::memset(bytes_at(address), 0, granule);
        FINE(cu.cuMemUnmap(address, granule));
        FINE(cu.cuMemRelease(handle));
        FINE(cu.cuMemAddressFree(address, granule));
    }
    u64 block = 0;
    FINE(cu.cuMemAlloc_v2(&block, 100));
    EXPECT_EQ(bytes_at(block)[99], FAKE_POISON);
}

TEST_F(FakeCuda, ContentStaysWithTheHandleWhereverItIsMapped) {
    const u64 first = reserve(granule), second = reserve(granule);
    const u64 handle = create(granule);
    FINE(cu.cuMemMap(first, granule, 0, handle, 0));
    FINE(allow(first, granule));
    std::memcpy(bytes_at(first + 1000), "dormouse", 8);
    FINE(cu.cuMemUnmap(first, granule));
    FINE(cu.cuMemMap(second, granule, 0, handle, 0));
    FINE(allow(second, granule));
    EXPECT_EQ(std::memcmp(bytes_at(second + 1000), "dormouse", 8), 0);
    EXPECT_EQ(bytes_at(second)[0], FAKE_POISON);
}

TEST_F(FakeCuda, MemoryIsFreeOnceHandleAndMappingsAreGone) {
    const u64 address = reserve(granule);
    const u64 handle = create(granule);
    EXPECT_EQ(cu.fake_live("bytes"), granule);
    FINE(cu.cuMemMap(address, granule, 0, handle, 0));
    FINE(cu.cuMemRelease(handle));
    EXPECT_EQ(cu.fake_live("handles"), 0U);
    EXPECT_EQ(cu.fake_live("bytes"), granule);  // the mapping holds it
    REFUSED(1, cu.cuMemRelease(handle));
    REFUSED(1, cu.cuMemMap(address, granule, 0, handle, 0));
    FINE(allow(address, granule));
    EXPECT_TRUE(writable(address));
    FINE(cu.cuMemUnmap(address, granule));
    EXPECT_EQ(cu.fake_live("bytes"), 0U);
    REFUSED(1, cu.cuMemRelease(handle));
    const u64 other = create(granule);
    EXPECT_NE(other, handle);
    FINE(cu.cuMemRelease(other));
    EXPECT_EQ(cu.fake_live("bytes"), 0U);
}

TEST_F(FakeCuda, TheDeviceIsFullAtItsCapacity) {
    u64 handle = 0, block = 0;
    std::size_t free = 0, total = 0;
    create(capacity - 2 * granule);
    FINE(cu.cuMemAlloc_v2(&block, granule));
    FINE(cu.cuMemGetInfo_v2(&free, &total));
    EXPECT_EQ(free, granule);
    EXPECT_EQ(total, capacity);
    EXPECT_EQ(cu.cuMemCreate(&handle, 2 * granule, &device_prop, 0), 2);
    EXPECT_EQ(cu.cuMemAlloc_v2(&block, granule + 1), 2);
    EXPECT_EQ(cu.cuMemAlloc_v2(&block, SIZE_MAX), 2);
    cu.fake_squat(granule);
    EXPECT_EQ(cu.cuMemCreate(&handle, granule, &device_prop, 0), 2);
    FINE(cu.cuMemGetInfo_v2(&free, &total));
    EXPECT_EQ(free, 0U);
    cu.fake_squat(0);
    FINE(cu.cuMemCreate(&handle, granule, &device_prop, 0));
    EXPECT_EQ(cu.fake_violations(), 0U);  // a full device is no broken rule
}

TEST_F(FakeCuda, ACopyHappensWhenSomebodyWaitsForItAndNotBefore) {
    const u64 address = usable(granule);
    unsigned char* const from = host(granule);
    unsigned char* const to = host(granule);
    const Opaque queue = stream();
    std::memset(from, 1, granule);
    FINE(cu.cuMemcpyHtoDAsync_v2(address, from, granule, queue));
    FINE(cu.cuMemcpyDtoHAsync_v2(to, address, granule, queue));
    FINE(cu.cuMemsetD8Async(address, 9, granule, queue));
    EXPECT_EQ(bytes_at(address)[5], FAKE_POISON);
    EXPECT_EQ(to[5], FAKE_POISON);
    FINE(cu.cuStreamSynchronize(stream()));  // another stream
    EXPECT_EQ(to[5], FAKE_POISON);
    FINE(cu.cuStreamSynchronize(queue));
    EXPECT_EQ(to[5], 1);  // in order: copied before it was set
    EXPECT_EQ(bytes_at(address)[granule - 1], 9);
}

TEST_F(FakeCuda, ADeviceWideWaitCoversEveryStreamAndDestroyedOnes) {
    const u64 address = usable(granule);
    const Opaque kept = stream(), destroyed = stream();
    FINE(cu.cuMemsetD8Async(address, 1, 1, kept));
    FINE(cu.cuMemsetD8Async(address + 1, 2, 1, destroyed));
    FINE(cu.cuMemsetD8Async(address + 2, 3, 1, nullptr));
    FINE(cu.cuStreamDestroy_v2(destroyed));
    REFUSED(700, cu.cuMemUnmap(address, granule));
    FINE(cu.cuCtxSynchronize());
    EXPECT_EQ(std::memcmp(bytes_at(address), "\1\2\3", 3), 0);
    FINE(cu.cuMemUnmap(address, granule));
}

TEST_F(FakeCuda, MemoryWithQueuedWorkMayNotGoAway) {
    const u64 address = usable(granule);
    u64 block = 0;
    FINE(cu.cuMemAlloc_v2(&block, 4096));
    unsigned char* const allocated = host(4096);
    alignas(4096) static std::array<unsigned char, 4096> registered;
    FINE(cu.cuMemHostRegister_v2(registered.data(), registered.size(), 0));
    const Opaque queue = stream();
    FINE(cu.cuMemcpyHtoDAsync_v2(address, registered.data(), 4096, queue));
    FINE(cu.cuMemcpyDtoHAsync_v2(allocated, block, 4096, queue));
    REFUSED(700, cu.cuMemUnmap(address, granule));
    REFUSED(700, allow(address, granule, 0));
    REFUSED(700, cu.cuMemFree_v2(block));
    REFUSED(700, cu.cuMemFreeHost(allocated));
    REFUSED(700, cu.cuMemHostUnregister(registered.data()));
    FINE(cu.cuStreamSynchronize(queue));
    FINE(cu.cuMemUnmap(address, granule));
    FINE(cu.cuMemFree_v2(block));
    FINE(cu.cuMemFreeHost(allocated));
    FINE(cu.cuMemHostUnregister(registered.data()));
    REFUSED(1, cu.cuMemFree_v2(block));
    EXPECT_EQ(cu.fake_live("host"), 0U);
    EXPECT_EQ(cu.fake_live("pinned"), 0U);
}

TEST_F(FakeCuda, ACopyMaySpanMappingsButNotAHole) {
    const u64 address = reserve(4 * granule);
    for (u64 i : {0, 1, 3}) FINE(cu.cuMemMap(address + i * granule, granule, 0, create(granule), 0));
    FINE(allow(address, 2 * granule));
    FINE(allow(address + 3 * granule, granule));
    unsigned char* const buffer = host(4 * granule);
    FINE(cu.cuMemcpyDtoHAsync_v2(buffer, address + 1, 2 * granule - 1, nullptr));
    REFUSED(1, cu.cuMemcpyDtoHAsync_v2(buffer, address, 2 * granule + 1, nullptr));
    REFUSED(1, cu.cuMemcpyDtoHAsync_v2(buffer, address, 4 * granule, nullptr));
}

TEST_F(FakeCuda, HostMemoryOfACopyLiesInsideOnePinnedRange) {
    const u64 address = usable(granule);
    void* const memory = mmap(nullptr, 4 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    auto* const bytes = static_cast<unsigned char*>(memory);
    REFUSED(1, cu.cuMemcpyHtoDAsync_v2(address, bytes, 1, nullptr));
    FINE(cu.cuMemHostRegister_v2(bytes, 4096, 0));
    FINE(cu.cuMemHostRegister_v2(bytes + 4096, 4096, 8));  // read only
    EXPECT_EQ(cu.fake_live("pinned"), 2U);
    FINE(cu.cuMemcpyHtoDAsync_v2(address, bytes, 4096, nullptr));
    FINE(cu.cuMemcpyHtoDAsync_v2(address, bytes + 4096, 4096, nullptr));
    REFUSED(1, cu.cuMemcpyHtoDAsync_v2(address, bytes, 4097, nullptr));  // across two ranges
    REFUSED(1, cu.cuMemcpyDtoHAsync_v2(bytes + 4096, address, 4096, nullptr));
    REFUSED(1, cu.cuMemcpyHtoDAsync_v2(address, bytes + 2 * 4096, 1, nullptr));
    REFUSED(712, cu.cuMemHostRegister_v2(bytes, 4096, 0));
    REFUSED(712, cu.cuMemHostRegister_v2(bytes + 2048, 4 * 4096 - 2048, 0));
    REFUSED(713, cu.cuMemHostUnregister(bytes + 2048));
    REFUSED(1, cu.cuMemHostRegister_v2(bytes + 2 * 4096, 0, 0));
    REFUSED(1, cu.cuMemHostRegister_v2(bytes + 2 * 4096, 4096, 16));
    REFUSED(1, cu.cuMemHostRegister_v2(nullptr, 4096, 0));
    FINE(cu.cuCtxSynchronize());
    FINE(cu.cuMemHostUnregister(bytes));
    REFUSED(713, cu.cuMemHostUnregister(bytes));
    munmap(bytes + 3 * 4096, 4096);
    REFUSED(1, cu.cuMemHostRegister_v2(bytes + 2 * 4096, 2 * 4096, 0));  // not all of it is memory
    munmap(memory, 3 * 4096);
}

TEST_F(FakeCuda, PinnedBlocksAreFreedOnceAndByTheirOwnCall) {
    void* place = nullptr;
    REFUSED(1, cu.cuMemHostAlloc(&place, 0, 0));
    REFUSED(1, cu.cuMemHostAlloc(&place, 8, 8));
    unsigned char* const block = host(8);
    EXPECT_EQ(cu.fake_live("host"), 1U);
    EXPECT_EQ(block[7], FAKE_POISON);
    REFUSED(713, cu.cuMemHostUnregister(block));
    REFUSED(1, cu.cuMemFreeHost(block + 1));
    FINE(cu.cuMemFreeHost(block));
    REFUSED(1, cu.cuMemFreeHost(block));
}

TEST_F(FakeCuda, DestroyedAndForeignStreamsAreRejected) {
    const u64 address = usable(granule);
    unsigned char* const buffer = host(8);
    int foreign = 0, least = 1, greatest = 1;
    Opaque low = nullptr, none = nullptr;
    FINE(cu.cuCtxGetStreamPriorityRange(&least, &greatest));
    EXPECT_GT(least, greatest);
    FINE(cu.cuStreamCreateWithPriority(&low, 1, least));
    REFUSED(1, cu.cuStreamCreate(&none, 2));
    const Opaque gone = stream();
    EXPECT_EQ(cu.fake_live("streams"), 2U);
    FINE(cu.cuStreamDestroy_v2(gone));
    for (const Opaque wrong : {gone, static_cast<Opaque>(&foreign)}) {
        REFUSED(400, cu.cuStreamSynchronize(wrong));
        REFUSED(400, cu.cuStreamDestroy_v2(wrong));
        REFUSED(400, cu.cuMemcpyHtoDAsync_v2(address, buffer, 8, wrong));
        REFUSED(400, cu.cuMemcpyDtoHAsync_v2(buffer, address, 8, wrong));
        REFUSED(400, cu.cuMemsetD8Async(address, 0, 8, wrong));
        REFUSED(400, launch(kernel(), address, 2, 0, address, wrong));
    }
    REFUSED(400, cu.cuStreamDestroy_v2(nullptr));
    FINE(cu.cuStreamDestroy_v2(low));
}

TEST_F(FakeCuda, TheKernelAddsTheDigestWhenItIsWaitedFor) {
    const u64 address = usable(granule);
    u64 out = 0;
    FINE(cu.cuMemAlloc_v2(&out, 8));
    const Opaque queue = stream(), function = kernel();
    // Known answers, worked out by hand from digest.hpp's words: x of one word that is 0, and of one that is 1.
    const auto mixed = [](u64 word, u64 position) {
        u64 x = word + (position + 1) * 0x9E3779B97F4A7C15ULL;
        x = (x ^ (x >> 32)) * 0xD6E8FEB86659FD93ULL;
        return x ^ (x >> 32);
    };
    const std::array<u64, 4> words{0, 1, 0xffffffffffffffffULL, 42};
    std::memcpy(bytes_at(address), words.data(), sizeof words);
    FINE(cu.cuMemsetD8Async(out, 0, 8, queue));
    FINE(launch(function, address, 2, 0, out, queue));
    FINE(launch(function, address + 16, 2, 2, out, queue));
    EXPECT_EQ(bytes_at(out)[0], FAKE_POISON);
    FINE(cu.cuStreamSynchronize(queue));
    u64 sum = 0;
    std::memcpy(&sum, bytes_at(out), 8);
    EXPECT_EQ(sum, mixed(0, 0) + mixed(1, 1) + mixed(words[2], 2) + mixed(42, 3));
}

TEST_F(FakeCuda, ABadModuleOrLaunchIsRejected) {
    const u64 address = usable(granule), bare = reserve(granule);
    FINE(cu.cuMemMap(bare, granule, 0, create(granule), 0));
    Opaque module = nullptr, function = nullptr;
    REFUSED(200, cu.cuModuleLoadData(&module, "\177ELF"));
    REFUSED(200, cu.cuModuleLoadData(&module, ".version 7.0\n.target sm_70\n.address_size 64\n.visible .entry other("));
    REFUSED(1, cu.cuModuleLoadData(&module, nullptr));
    FINE(cu.cuModuleLoadData(&module, ptx));
    REFUSED(500, cu.cuModuleGetFunction(&function, module, "other"));
    REFUSED(400, cu.cuModuleGetFunction(&function, &module, "dormouse_digest"));
    FINE(cu.cuModuleGetFunction(&function, module, "dormouse_digest"));
    REFUSED(1, launch(function, address, 2, 0, address, nullptr, 0));
    REFUSED(1, launch(function, address, 2, 0, address, nullptr, 1, 0));
    REFUSED(1, launch(function, address, 2, 0, address, nullptr, 1, 2048));
    REFUSED(1, cu.cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, nullptr, nullptr, nullptr));
    REFUSED(400, launch(&module, address, 2, 0, address, nullptr));
    REFUSED(716, launch(function, address + 8, 2, 0, address, nullptr));
    REFUSED(716, launch(function, address, 1, 0, address, nullptr));
    REFUSED(716, launch(function, address, 2, 0, address + 4, nullptr));
    REFUSED(700, launch(function, bare, 2, 0, address, nullptr));  // no access set
    REFUSED(700, launch(function, address, 2, 0, bare, nullptr));
    REFUSED(700, launch(function, address, granule / 8 + 2, 0, address, nullptr));
    REFUSED(1, launch(function, address, SIZE_MAX / 4, 0, address, nullptr));
    FINE(launch(function, address, 2, 0, address + 64, nullptr));
    REFUSED(700, cu.cuMemUnmap(address, granule));
    FINE(cu.cuCtxSynchronize());
    FINE(cu.cuModuleUnload(module));
    REFUSED(400, cu.cuModuleUnload(module));
    REFUSED(400, launch(function, address, 2, 0, address, nullptr));
}

TEST_F(FakeCuda, NamesOfErrorsAndFunctionsCanBeAsked) {
    const char* text = nullptr;
    FINE(cu.cuGetErrorName(2, &text));
    EXPECT_STREQ(text, "CUDA_ERROR_OUT_OF_MEMORY");
    FINE(cu.cuGetErrorString(713, &text));
    EXPECT_STRNE(text, nullptr);
    EXPECT_EQ(cu.cuGetErrorName(31337, &text), 1);
    EXPECT_EQ(text, nullptr);
    void* function = nullptr;
    int status = -1;
    FINE(cu.cuGetProcAddress_v2("cuMemHostRegister", &function, 12080, 0, &status));
    EXPECT_EQ(function, reinterpret_cast<void*>(cu.cuMemHostRegister_v2));
    EXPECT_EQ(status, 0);
    FINE(cu.cuGetProcAddress_v2("cuMemMap", &function, 12080, 0, nullptr));
    EXPECT_EQ(function, reinterpret_cast<void*>(cu.cuMemMap));
    for (const char* unknown : {"cuMemHostRegister_v2", "cuNothing", "fake_reset", "cuserid"}) {
        EXPECT_EQ(cu.cuGetProcAddress_v2(unknown, &function, 12080, 0, &status), 500) << unknown;
        EXPECT_EQ(function, nullptr);
        EXPECT_EQ(status, 1);
    }
}

TEST_F(FakeCuda, AForkedChildIsRefused) {
    const pid_t child = fork();
    if (child == 0) {
        std::size_t size = 0;
        _exit(cu.cuMemGetInfo_v2(&size, &size) == 3 ? 0 : 1);
    }
    int status = -1;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
}

TEST_F(FakeCuda, CopiesTakeAsLongAsTheirRateSays) {
    const u64 address = usable(granule);
    unsigned char* const buffer = host(granule);
    cu.fake_copy_rate(double{granule} / 0.05);
    FINE(cu.cuMemcpyDtoHAsync_v2(buffer, address, granule, nullptr));
    const auto start = std::chrono::steady_clock::now();
    FINE(cu.cuCtxSynchronize());
    EXPECT_GE(std::chrono::steady_clock::now() - start, std::chrono::milliseconds(50));
}

TEST_F(FakeCuda, ManyThreadsAtOnceLoseNothing) {
    std::atomic<int> failures{0};
    std::vector<std::thread> threads;
    for (unsigned char id = 1; id <= 4; ++id)
        threads.emplace_back([this, id, &failures] {
            Opaque queue = nullptr;
            void* place = nullptr;
            failures += cu.cuCtxSetCurrent(context) + cu.cuStreamCreate(&queue, 1);
            failures += cu.cuMemHostAlloc(&place, granule, 0);
            auto* const buffer = static_cast<unsigned char*>(place);
            const Access access{{1, 0}, 3};
            for (int round = 0; round < 20; ++round) {
                u64 address = 0, handle = 0;
                failures += cu.cuMemAddressReserve(&address, granule, 0, 0, 0);
                failures += cu.cuMemCreate(&handle, granule, &device_prop, 0);
                failures += cu.cuMemMap(address, granule, 0, handle, 0) + cu.cuMemRelease(handle);
                failures += cu.cuMemSetAccess(address, granule, &access, 1);
                std::memset(buffer, id, granule);
                failures += cu.cuMemcpyHtoDAsync_v2(address, buffer, granule, queue);
                failures += cu.cuStreamSynchronize(queue);
                failures += bytes_at(address)[granule - 1] == id ? 0 : 1;
                failures += cu.cuMemsetD8Async(address, static_cast<unsigned char>(id + 100), granule, queue);
                failures += cu.cuMemcpyDtoHAsync_v2(buffer, address, granule, queue);
                failures += round % 2 == 0 ? cu.cuCtxSynchronize() : cu.cuStreamSynchronize(queue);
                failures += buffer[granule - 1] == id + 100 ? 0 : 1;
                failures += cu.cuMemUnmap(address, granule) + cu.cuMemAddressFree(address, granule);
            }
            failures += cu.cuStreamDestroy_v2(queue) + cu.cuMemFreeHost(place);
        });
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(failures, 0) << cu.fake_last_violation();
    EXPECT_EQ(cu.fake_violations(), 0U);
    for (const char* what : {"handles", "mappings", "reservations", "pinned", "streams", "bytes", "host"})
        EXPECT_EQ(cu.fake_live(what), 0U) << what;
}

}  // namespace
