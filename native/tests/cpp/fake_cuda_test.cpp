// The fake libcuda.so.1 enforces the vendor's rules for start-up and memory: each is broken here once, and the fake
// must refuse it and count it.
#include "fake_cuda.hpp"

#include <sys/wait.h>

#include <cstring>
#include <thread>
#include <vector>

namespace fake_cuda {
namespace {

TEST_F(FakeCuda, NothingWorksBeforeInit) {
    cu.fake_reset(capacity);
    int number = 0;
    u64 out = 0;
    Opaque opaque = nullptr;
    REFUSED(3, cu.cuDeviceGetCount(&number));
    EXPECT_STREQ(cu.fake_last_violation(), "cuDeviceGetCount: cuInit was not called");
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
    const u64 address = reserve(2 * granule);
    const u64 handle = create(granule);
    EXPECT_EQ(cu.fake_live("bytes"), granule);
    FINE(cu.cuMemMap(address, granule, 0, handle, 0));
    FINE(cu.cuMemRelease(handle));
    EXPECT_EQ(cu.fake_live("handles"), 0U);
    EXPECT_EQ(cu.fake_live("bytes"), granule);  // the mapping holds it
    REFUSED(1, cu.cuMemRelease(handle));
    REFUSED(1, cu.cuMemMap(address + granule, granule, 0, handle, 0));
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

TEST_F(FakeCuda, AnAnswerWantsAPlace) {
    std::size_t size = 0;
    u64 address = 0;
    Opaque module = nullptr;
    FINE(cu.cuModuleLoadData(&module, ptx));
    REFUSED(1, cu.cuDriverGetVersion(nullptr));
    REFUSED(1, cu.cuDeviceGetCount(nullptr));
    REFUSED(1, cu.cuDeviceGet(nullptr, 0));
    REFUSED(1, cu.cuDeviceGetUuid_v2(nullptr, 0));
    REFUSED(1, cu.cuDevicePrimaryCtxRetain(nullptr, 0));
    REFUSED(1, cu.cuCtxGetCurrent(nullptr));
    REFUSED(1, cu.cuMemGetInfo_v2(&size, nullptr));
    REFUSED(1, cu.cuMemAlloc_v2(nullptr, 8));
    REFUSED(1, cu.cuMemAlloc_v2(&address, 0));
    REFUSED(1, cu.cuModuleGetFunction(nullptr, module, "dormouse_digest"));
    REFUSED(1, cu.cuGetErrorName(2, nullptr));
    REFUSED(1, cu.cuGetProcAddress_v2("cuMemMap", nullptr, 12080, 0, nullptr));
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

// Calls with nothing but zeros: an injected fault comes before any look at them.
template <class... A>
int with_zeros(int (*function)(A...)) {
    return function(A{}...);
}

TEST_F(FakeCuda, EverySymbolFailsOnDemandAndChangesNothing) {
    const u64 address = usable(granule);
    const Opaque queue = stream();
    FINE(cu.cuMemsetD8Async(address, 1, granule, queue));
    const auto held = [this] {
        std::vector<unsigned long> counts;
        for (const char* kind : kinds) counts.push_back(cu.fake_live(kind));
        return counts;
    };
    const auto before = held();
#define FAIL_ONCE(name, ...)                      \
    cu.fake_fail(#name, 1, 999, 1);               \
    EXPECT_EQ(with_zeros(cu.name), 999) << #name; \
    EXPECT_EQ(held(), before) << #name;           \
    EXPECT_STREQ(cu.fake_call_name(cu.fake_calls(nullptr) - 1), #name);
    CUDA_SYMBOLS(FAIL_ONCE)
#undef FAIL_ONCE
    EXPECT_EQ(bytes_at(address)[0], FAKE_POISON);  // nor did a failed wait do any work
    EXPECT_EQ(cu.fake_violations(), 0U);           // nor is a fault a broken rule
    Opaque now = nullptr;
    FINE(cu.cuCtxGetCurrent(&now));
    EXPECT_EQ(now, context);
    FINE(cu.cuStreamSynchronize(queue));
    EXPECT_EQ(bytes_at(address)[0], 1);
}

}  // namespace
}  // namespace fake_cuda
