// The fake libascendcl.so itself: whoever breaks one of AscendCL's rules is refused and counted, and nothing changes.
//
// The property struct is written here word by word, not with the driver's own declaration of it.
#ifndef FAKE_LIBASCENDCL_PATH
#define FAKE_LIBASCENDCL_PATH "/nowhere/libascendcl.so"
#endif

#include "support/fake_acl.hpp"

#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <cstring>
#include <functional>
#include <thread>

namespace dormouse {
namespace {

constexpr std::size_t mib = std::size_t{1} << 20;
constexpr std::size_t unit = 2 * mib;
constexpr std::size_t capacity = 16 * mib;
constexpr int down = 1, up = 2;  // kinds of copies

// handle type, allocation type, memory attribute, location id, location type, padding, reserved (64 bits)
using Words = std::array<std::int32_t, 8>;
constexpr Words huge{0, 0, 4, 0, 1, 0, 0, 0};

Words with(std::size_t word, std::int32_t value) {
    Words words = huge;
    words[word] = value;
    return words;
}

struct FakeAclRules : testing::Test {
    FakeAclRules() {
        EXPECT_EQ(init(), 0);
        EXPECT_EQ(set_device(0), 0);
    }

    int init() { return fake.call<int(const char*)>("aclInit", nullptr); }
    int set_device(int device) { return fake.call<int(std::int32_t)>("aclrtSetDevice", device); }
    int get_context(void** context) { return fake.call<int(void**)>("aclrtGetCurrentContext", context); }
    int set_context(void* context) { return fake.call<int(void*)>("aclrtSetCurrentContext", context); }
    int reserve(void** address, std::size_t bytes, std::uint64_t flags = 0, std::size_t alignment = 0) {
        return fake.call<int(void**, std::size_t, std::size_t, void*, std::uint64_t)>("aclrtReserveMemAddress", address,
                                                                                      bytes, alignment, nullptr, flags);
    }
    int unreserve(void* address) { return fake.call<int(void*)>("aclrtReleaseMemAddress", address); }
    int create(void** handle, std::size_t bytes, Words words = huge, std::uint64_t flags = 0) {
        return fake.call<int(void**, std::size_t, const void*, std::uint64_t)>(
            "aclrtMallocPhysical", handle, bytes, static_cast<const void*>(words.data()), flags);
    }
    int release(void* handle) { return fake.call<int(void*)>("aclrtFreePhysical", handle); }
    int map(void* address, std::size_t bytes, void* handle, std::size_t offset = 0, std::uint64_t flags = 0) {
        return fake.call<int(void*, std::size_t, std::size_t, void*, std::uint64_t)>("aclrtMapMem", address, bytes,
                                                                                     offset, handle, flags);
    }
    int unmap(void* address) { return fake.call<int(void*)>("aclrtUnmapMem", address); }
    int granularity(Words words, int option, std::size_t* bytes) {
        return fake.call<int(const void*, int, std::size_t*)>("aclrtMemGetAllocationGranularity",
                                                              static_cast<const void*>(words.data()), option, bytes);
    }
    int info(int attribute, std::size_t* free, std::size_t* total) {
        return fake.call<int(int, std::size_t*, std::size_t*)>("aclrtGetMemInfo", attribute, free, total);
    }
    int host_alloc(void** address, std::size_t bytes) {
        return fake.call<int(void**, std::size_t)>("aclrtMallocHost", address, bytes);
    }
    int host_free(void* address) { return fake.call<int(void*)>("aclrtFreeHost", address); }
    int pin(void* address, std::uint64_t bytes, std::uint32_t flags = 0x10000000) {
        return fake.call<int(void*, std::uint64_t, std::uint32_t)>("aclrtHostRegisterV2", address, bytes, flags);
    }
    int unpin(void* address) { return fake.call<int(void*)>("aclrtHostUnregister", address); }
    int create_stream(void** stream, std::uint32_t priority = 0, std::uint32_t flags = 0) {
        return fake.call<int(void**, std::uint32_t, std::uint32_t)>("aclrtCreateStreamWithConfig", stream, priority,
                                                                    flags);
    }
    int destroy_stream(void* stream) { return fake.call<int(void*)>("aclrtDestroyStream", stream); }
    int synchronize(void* stream) { return fake.call<int(void*)>("aclrtSynchronizeStream", stream); }
    int copy(void* to, std::size_t room, const void* from, std::size_t bytes, int kind, void* stream) {
        return fake.call<int(void*, std::size_t, const void*, std::size_t, int, void*)>("aclrtMemcpyAsync", to, room,
                                                                                        from, bytes, kind, stream);
    }

    // A broken rule: refused with this code, counted, and nothing is held that was not, or gone.
    void expect_broken(int wanted, const std::function<int()>& body) {
        const unsigned long before = fake.violations();
        std::array<unsigned long, 7> held{}, after{};
        const auto count = [&](auto& counts) {
            std::size_t i = 0;
            for (const char* what : {"handles", "mappings", "reservations", "pinned", "streams", "bytes", "host"})
                counts[i++] = fake.live(what);
        };
        count(held);
        EXPECT_EQ(body(), wanted) << fake.last_violation();
        count(after);
        EXPECT_EQ(fake.violations(), before + 1) << fake.last_violation();
        EXPECT_EQ(held, after) << fake.last_violation();
    }

    void* inside(void* address, std::size_t offset) { return static_cast<unsigned char*>(address) + offset; }

    FakeAcl fake{FAKE_LIBASCENDCL_PATH, capacity};
};

struct FakeAclCopies : FakeAclRules {
    FakeAclCopies() {
        EXPECT_EQ(reserve(&device, 3 * unit), 0);
        EXPECT_EQ(create(&first, unit), 0);
        EXPECT_EQ(create(&second, unit), 0);
        EXPECT_EQ(map(device, unit, first), 0);
        EXPECT_EQ(map(inside(device, unit), unit, second), 0);
        EXPECT_EQ(host_alloc(&host, 2 * unit), 0);
        EXPECT_EQ(create_stream(&stream), 0);
    }
    void *device = nullptr, *first = nullptr, *second = nullptr, *host = nullptr, *stream = nullptr;
};

TEST_F(FakeAclRules, NothingWorksBeforeInitAndASecondInitIsNoSin) {
    EXPECT_EQ(init(), 100002);
    EXPECT_EQ(fake.violations(), 0u);
    fake.reset(capacity);
    void* context = nullptr;
    expect_broken(100001, [&] { return set_device(0); });
    expect_broken(100001, [&] { return get_context(&context); });
    expect_broken(100001, [&] { return create_stream(&context); });
    expect_broken(107000, [&] { return fake.call<int(const char*)>("aclInit", "acl.json"); });
}

TEST_F(FakeAclRules, OnlyDevicesThatExistCanBeSet) {
    EXPECT_EQ(set_device(2), 107001);
    EXPECT_EQ(set_device(-1), 107001);
    EXPECT_EQ(set_device(1), 0);
    EXPECT_EQ(fake.violations(), 0u);
}

TEST_F(FakeAclRules, AThreadHasNoContextUntilItTakesOne) {
    void* context = nullptr;
    ASSERT_EQ(get_context(&context), 0);
    std::thread([&] {
        void* other = nullptr;
        EXPECT_EQ(get_context(&other), 107002);
        EXPECT_EQ(fake.violations(), 0u);
        expect_broken(107002, [&] { return reserve(&other, unit); });
        expect_broken(107002, [&] { return host_alloc(&other, unit); });
        expect_broken(107000, [&] { return set_context(nullptr); });
        EXPECT_EQ(set_context(context), 0);
        EXPECT_EQ(create_stream(&other), 0);
    }).join();
}

TEST_F(FakeAclRules, PropertiesMustLieWhereAscendClReadsThem) {
    void* handle = nullptr;
    std::size_t bytes = 0;
    EXPECT_EQ(granularity(huge, 0, &bytes), 0);
    EXPECT_EQ(bytes, unit);
    expect_broken(107000, [&] { return granularity(huge, 2, &bytes); });
    // Among the wrong ones: CUDA's order, with the type before the id.
    for (const Words& words : {with(0, 1), with(1, 1), with(2, 1), with(2, 10), with(3, 2), with(4, 0), with(6, 1),
                               with(7, 1), Words{0, 0, 4, 1, 0, 0, 0, 0}}) {
        expect_broken(107000, [&] { return create(&handle, unit, words); });
        expect_broken(107000, [&] { return granularity(words, 0, &bytes); });
    }
    expect_broken(107000, [&] { return create(&handle, unit, huge, 1); });
    EXPECT_EQ(create(&handle, unit, with(2, 5)), 0);  // normal pages
}

TEST_F(FakeAclRules, SizesAreMultiplesOfTheGranularity) {
    void* out = nullptr;
    for (const std::size_t bytes : {std::size_t{0}, unit - 1, unit + 4096}) {
        expect_broken(107000, [&] { return reserve(&out, bytes); });
        expect_broken(107000, [&] { return create(&out, bytes); });
    }
    expect_broken(107000, [&] { return reserve(&out, unit, 2); });
    expect_broken(107000, [&] { return reserve(&out, unit, 0, unit); });
}

TEST_F(FakeAclRules, TheDeviceIsFiniteAndSharedWithOthers) {
    void *handle = nullptr, *other = nullptr;
    std::size_t free = 0, total = 0;
    fake.squat(capacity - 2 * unit);
    EXPECT_EQ(create(&handle, 3 * unit), 207001);
    EXPECT_EQ(create(&handle, 2 * unit), 0);
    EXPECT_EQ(create(&other, unit), 207001);
    EXPECT_EQ(info(1, &free, &total), 0);
    EXPECT_EQ(free, 0u);
    EXPECT_EQ(total, capacity);
    EXPECT_EQ(fake.violations(), 0u);
    EXPECT_EQ(release(handle), 0);
    EXPECT_EQ(create(&other, unit), 0);
    expect_broken(107016, [&] { return info(0, &free, &total); });
}

TEST_F(FakeAclRules, NewMemoryIsPoisonedEvenWhereOldContentLay) {
    void *address = nullptr, *handle = nullptr;
    ASSERT_EQ(reserve(&address, unit), 0);
    for (int round = 0; round < 2; ++round) {
        ASSERT_EQ(create(&handle, unit), 0);
        ASSERT_EQ(map(address, unit, handle), 0);
        for (std::size_t i = 0; i < unit; ++i) ASSERT_EQ(static_cast<unsigned char*>(address)[i], FAKE_POISON);
        std::memset(address, 1, unit);
        ASSERT_EQ(unmap(address), 0);
        ASSERT_EQ(release(handle), 0);
    }
    ASSERT_EQ(host_alloc(&handle, 4096), 0);
    EXPECT_EQ(*static_cast<unsigned char*>(handle), FAKE_POISON);
}

TEST_F(FakeAclRules, AMappingIsAsLargeAsItsMemoryAndLiesInOneReservation) {
    void *address = nullptr, *handle = nullptr, *other = nullptr;
    ASSERT_EQ(reserve(&address, 4 * unit), 0);
    ASSERT_EQ(create(&handle, 2 * unit), 0);
    ASSERT_EQ(create(&other, unit), 0);
    expect_broken(107000, [&] { return map(address, unit, handle); });
    expect_broken(107000, [&] { return map(address, 4 * unit, handle); });
    expect_broken(107000, [&] { return map(address, 2 * unit, handle, unit); });
    expect_broken(107000, [&] { return map(address, 2 * unit, handle, 0, 1); });
    expect_broken(107008, [&] { return map(inside(address, 4096), 2 * unit, handle); });
    expect_broken(107000, [&] { return map(inside(address, 3 * unit), 2 * unit, handle); });
    expect_broken(107000, [&] { return map(inside(nullptr, unit), 2 * unit, handle); });
    expect_broken(107017, [&] { return map(address, 2 * unit, nullptr); });
    ASSERT_EQ(map(inside(address, unit), 2 * unit, handle), 0);
    expect_broken(107000, [&] { return map(inside(address, unit), unit, other); });
    expect_broken(107000, [&] { return map(inside(address, 2 * unit), unit, other); });
    EXPECT_EQ(map(address, unit, other), 0);
}

TEST_F(FakeAclRules, AMappingIsUndoneByItsOwnAddressAlone) {
    void *address = nullptr, *handle = nullptr;
    ASSERT_EQ(reserve(&address, 4 * unit), 0);
    ASSERT_EQ(create(&handle, 2 * unit), 0);
    ASSERT_EQ(map(inside(address, unit), 2 * unit, handle), 0);
    expect_broken(107000, [&] { return unmap(address); });
    expect_broken(107000, [&] { return unmap(inside(address, 2 * unit)); });
    EXPECT_EQ(unmap(inside(address, unit)), 0);
    expect_broken(107000, [&] { return unmap(inside(address, unit)); });
}

TEST_F(FakeAclRules, TouchingMemoryThatIsNotMappedFaults) {
    void *address = nullptr, *handle = nullptr;
    ASSERT_EQ(reserve(&address, unit), 0);
    ASSERT_EQ(create(&handle, unit), 0);
    ASSERT_EQ(map(address, unit, handle), 0);
    ASSERT_EQ(unmap(address), 0);
    testing::FLAGS_gtest_death_test_style = "threadsafe";
    EXPECT_DEATH(*static_cast<volatile unsigned char*>(address) = 1, "");
}

TEST_F(FakeAclRules, AReservationIsReleasedWholeAndEmpty) {
    void *address = nullptr, *handle = nullptr;
    ASSERT_EQ(reserve(&address, 2 * unit), 0);
    ASSERT_EQ(create(&handle, unit), 0);
    ASSERT_EQ(map(inside(address, unit), unit, handle), 0);
    expect_broken(107000, [&] { return unreserve(address); });
    ASSERT_EQ(unmap(inside(address, unit)), 0);
    expect_broken(107000, [&] { return unreserve(inside(address, unit)); });
    EXPECT_EQ(unreserve(address), 0);
    expect_broken(107000, [&] { return unreserve(address); });
}

TEST_F(FakeAclRules, FreedMemoryGoesWithItsLastMappingAndIsFreedOnce) {
    void *address = nullptr, *handle = nullptr;
    ASSERT_EQ(reserve(&address, 2 * unit), 0);
    ASSERT_EQ(create(&handle, unit), 0);
    ASSERT_EQ(map(address, unit, handle), 0);
    EXPECT_EQ(release(handle), 0);
    EXPECT_EQ(fake.live("handles"), 0u);
    EXPECT_EQ(fake.live("bytes"), unit);
    expect_broken(107017, [&] { return release(handle); });
    expect_broken(107017, [&] { return map(inside(address, unit), unit, handle); });
    EXPECT_EQ(unmap(address), 0);
    EXPECT_EQ(fake.live("bytes"), 0u);
    expect_broken(107017, [&] { return release(handle); });
}

TEST_F(FakeAclRules, MemoryOfADeviceIsMappedFromItsOwnContext) {
    void *address = nullptr, *handle = nullptr;
    ASSERT_EQ(reserve(&address, unit), 0);
    ASSERT_EQ(create(&handle, unit, with(3, 1)), 0);
    expect_broken(107003, [&] { return map(address, unit, handle); });
    ASSERT_EQ(set_device(1), 0);
    EXPECT_EQ(map(address, unit, handle), 0);
}

TEST_F(FakeAclRules, AReservationForHugePagesTakesNoOthers) {
    void *address = nullptr, *handle = nullptr;
    ASSERT_EQ(reserve(&address, unit, 1), 0);
    ASSERT_EQ(create(&handle, unit, with(2, 5)), 0);
    expect_broken(107016, [&] { return map(address, unit, handle); });
}

TEST_F(FakeAclRules, HostMemoryIsPinnedOnceAlignedAndUnpinnedByItsStart) {
    alignas(4096) static std::array<unsigned char, 3 * 4096> memory;
    expect_broken(107008, [&] { return pin(memory.data() + 64, 4096); });
    expect_broken(107000, [&] { return pin(memory.data(), 0); });
    for (const std::uint32_t flags : {0u, 2u, 0x10000004u})
        expect_broken(107000, [&] { return pin(memory.data(), 4096, flags); });
    ASSERT_EQ(pin(memory.data() + 4096, 4096, 0x10000002), 0);
    expect_broken(107000, [&] { return pin(memory.data(), 2 * 4096); });
    expect_broken(107000, [&] { return pin(memory.data() + 4096, 4096); });
    expect_broken(107000, [&] { return unpin(memory.data()); });
    EXPECT_EQ(pin(memory.data(), 4096), 0);
    EXPECT_EQ(unpin(memory.data() + 4096), 0);
    expect_broken(107000, [&] { return unpin(memory.data() + 4096); });
}

TEST_F(FakeAclRules, HostBlocksAreFreedOnceAndNotPinnedAgain) {
    void* block = nullptr;
    expect_broken(107000, [&] { return host_alloc(&block, 0); });
    ASSERT_EQ(host_alloc(&block, unit), 0);
    expect_broken(107000, [&] { return pin(block, 4096); });
    expect_broken(107000, [&] { return host_free(inside(block, 4096)); });
    EXPECT_EQ(host_free(block), 0);
    expect_broken(107000, [&] { return host_free(block); });
}

TEST_F(FakeAclRules, StreamsHaveEightPrioritiesAndOneContext) {
    void* stream = nullptr;
    expect_broken(107000, [&] { return create_stream(&stream, 8); });
    expect_broken(107000, [&] { return create_stream(&stream, 0, 4); });
    ASSERT_EQ(create_stream(&stream, 7), 0);
    ASSERT_EQ(set_device(1), 0);
    expect_broken(107003, [&] { return synchronize(stream); });
    expect_broken(107003, [&] { return destroy_stream(stream); });
    ASSERT_EQ(set_device(0), 0);
    EXPECT_EQ(destroy_stream(stream), 0);
    expect_broken(107003, [&] { return destroy_stream(stream); });
    expect_broken(107003, [&] { return destroy_stream(nullptr); });
    expect_broken(107003, [&] { return synchronize(stream); });
}

TEST_F(FakeAclCopies, ACopyHappensWhenItsStreamIsSynchronised) {
    std::memset(host, 3, unit);
    ASSERT_EQ(copy(device, unit, host, unit, down, stream), 0);
    EXPECT_EQ(*static_cast<unsigned char*>(device), FAKE_POISON);
    ASSERT_EQ(synchronize(stream), 0);
    EXPECT_EQ(*static_cast<unsigned char*>(device), 3);
    ASSERT_EQ(copy(inside(host, unit), unit, device, unit, up, nullptr), 0);  // the context's own stream
    ASSERT_EQ(fake.call<int()>("aclrtSynchronizeDevice"), 0);
    EXPECT_EQ(*static_cast<unsigned char*>(inside(host, unit)), 3);
}

TEST_F(FakeAclCopies, OneCopyMayCrossMappingsThatTouch) {
    std::memset(host, 4, 2 * unit);
    ASSERT_EQ(copy(device, 2 * unit, host, 2 * unit, down, stream), 0);
    ASSERT_EQ(synchronize(stream), 0);
    EXPECT_EQ(*static_cast<unsigned char*>(inside(device, 2 * unit - 1)), 4);
}

TEST_F(FakeAclCopies, DeviceMemoryMustBeMapped) {
    expect_broken(107000, [&] { return copy(inside(device, unit), 2 * unit, host, 2 * unit, down, stream); });
    expect_broken(107000, [&] { return copy(host, unit, inside(device, 2 * unit), unit, up, stream); });
}

TEST_F(FakeAclCopies, HostMemoryMustBePinnedForAllOfTheCopy) {
    alignas(4096) static std::array<unsigned char, 2 * 4096> memory;
    expect_broken(107000, [&] { return copy(device, 4096, memory.data(), 4096, down, stream); });
    expect_broken(107000, [&] { return copy(memory.data(), 4096, device, 4096, up, stream); });
    ASSERT_EQ(pin(memory.data(), 4096), 0);
    ASSERT_EQ(pin(memory.data() + 4096, 4096), 0);
    EXPECT_EQ(copy(device, 4096, memory.data(), 4096, down, stream), 0);
    expect_broken(107000, [&] { return copy(device, 8192, memory.data(), 8192, down, stream); });
    ASSERT_EQ(synchronize(stream), 0);
    ASSERT_EQ(unpin(memory.data()), 0);
    expect_broken(107000, [&] { return copy(device, 4096, memory.data(), 4096, down, stream); });
    expect_broken(107000, [&] { return copy(device, unit, inside(host, unit + 64), unit, down, stream); });
}

TEST_F(FakeAclCopies, TheRoomMustHoldTheCopyAndBeThere) {
    expect_broken(107000, [&] { return copy(device, 64, host, 128, down, stream); });
    expect_broken(107000, [&] { return copy(device, 0, host, 0, down, stream); });
    expect_broken(107000, [&] { return copy(device, 3 * unit, host, 64, down, stream); });
    expect_broken(107000, [&] { return copy(host, 3 * unit, device, 64, up, stream); });
}

TEST_F(FakeAclCopies, AddressesAreAlignedAndKindsAreTrue) {
    expect_broken(107008, [&] { return copy(inside(device, 32), 64, host, 64, down, stream); });
    expect_broken(107008, [&] { return copy(device, 64, inside(host, 8), 64, down, stream); });
    expect_broken(207000, [&] { return copy(host, 64, inside(host, 64), 64, 0, stream); });
    expect_broken(207000, [&] { return copy(device, 64, inside(device, 64), 64, 3, stream); });
    expect_broken(107000, [&] { return copy(device, 64, host, 64, up, stream); });
    expect_broken(107003, [&] { return copy(device, 64, host, 64, down, inside(stream, 1)); });
}

TEST_F(FakeAclCopies, NothingIsTakenFromUnderACopy) {
    alignas(4096) static std::array<unsigned char, 4096> memory;
    ASSERT_EQ(pin(memory.data(), 4096), 0);
    ASSERT_EQ(copy(device, unit, host, unit, down, stream), 0);
    ASSERT_EQ(copy(inside(device, unit), 4096, memory.data(), 4096, down, stream), 0);
    expect_broken(107000, [&] { return unmap(device); });
    expect_broken(107000, [&] { return unmap(inside(device, unit)); });
    expect_broken(107000, [&] { return host_free(host); });
    expect_broken(107000, [&] { return unpin(memory.data()); });
    expect_broken(107000, [&] { return destroy_stream(stream); });
    ASSERT_EQ(synchronize(stream), 0);
    EXPECT_EQ(unmap(device), 0);
    EXPECT_EQ(host_free(host), 0);
    EXPECT_EQ(unpin(memory.data()), 0);
    EXPECT_EQ(destroy_stream(stream), 0);
}

TEST_F(FakeAclCopies, AResetForgetsEverythingAndOldNamesMeanNothing) {
    fake.reset(capacity);
    for (const char* what : {"handles", "mappings", "reservations", "pinned", "streams", "bytes", "host"})
        EXPECT_EQ(fake.live(what), 0u) << what;
    EXPECT_EQ(fake.calls(nullptr), 0u);
    ASSERT_EQ(init(), 0);
    ASSERT_EQ(set_device(0), 0);
    expect_broken(107017, [&] { return release(first); });
    expect_broken(107003, [&] { return synchronize(stream); });
    expect_broken(107000, [&] { return host_free(host); });
    expect_broken(107000, [&] { return unreserve(device); });
}

TEST_F(FakeAclRules, AFaultComesAtTheCallThatWasNamedAndIsNoBrokenRule) {
    void* handle = nullptr;
    fake.fail("aclrtMallocPhysical", 507899, 2, 2);
    EXPECT_EQ(create(&handle, unit), 0);
    EXPECT_EQ(create(&handle, unit), 507899);
    EXPECT_EQ(create(&handle, unit), 507899);
    EXPECT_EQ(create(&handle, unit), 0);
    EXPECT_EQ(fake.violations(), 0u);
    EXPECT_EQ(fake.live("handles"), 2u);
}

}  // namespace
}  // namespace dormouse
