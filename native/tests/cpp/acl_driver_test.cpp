// The driver of Huawei's NPUs, on the fake libascendcl.so, which fails every call that breaks one of AscendCL's rules.
#ifndef FAKE_LIBASCENDCL_PATH
#define FAKE_LIBASCENDCL_PATH "/nowhere/libascendcl.so"
#define FAKE_LIBASCENDCL_OLD_PATH "/nowhere/old/libascendcl.so"
#endif

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <thread>
#include <vector>

#include "dormouse/driver.hpp"
#include "dormouse/error.hpp"
#include "support/fake_acl.hpp"

namespace dormouse {
namespace {

constexpr std::size_t mib = std::size_t{1} << 20;
constexpr std::size_t unit = 2 * mib;
constexpr std::size_t capacity = 32 * mib;
constexpr int no_memory = 207001;

struct AclDriver : testing::Test {
    std::unique_ptr<Driver> make(int device = 0) const {
        return make_acl_driver({.device = device, .library = fake.path});
    }

    Address mapped(std::size_t bytes) {
        const Address address = driver->reserve(bytes);
        physical = driver->create(bytes);
        driver->map(address, bytes, physical);
        driver->allow(address, bytes);
        return address;
    }

    void drop(Address address, std::size_t bytes) {
        driver->unmap(address, bytes);
        driver->release(physical);
        driver->unreserve(address, bytes);
    }

    // The driver must answer this failure of the library as driver_error, by name, and hold what it held.
    void expect_failure(const char* symbol, const std::function<void()>& body) {
        const std::vector<unsigned long> before = held();
        fake.fail(symbol, 507899);
        try {
            body();
            ADD_FAILURE() << symbol << " failed, and nobody said so";
        } catch (const driver_error& failure) {
            EXPECT_EQ(failure.call, symbol);
            EXPECT_EQ(failure.code, 507899);
            EXPECT_NE(std::string(failure.what()).find("words of the fake"), std::string::npos) << failure.what();
        }
        EXPECT_EQ(held(), before) << symbol;
    }

    std::vector<unsigned long> held() const {
        std::vector<unsigned long> counts;
        for (const char* what : {"handles", "mappings", "reservations", "pinned", "streams", "bytes", "host"})
            counts.push_back(fake.live(what));
        return counts;
    }

    void TearDown() override {
        driver.reset();
        EXPECT_EQ(fake.violations(), 0u) << fake.last_violation();
        EXPECT_EQ(held(), std::vector<unsigned long>(7, 0));
    }

    FakeAcl fake{FAKE_LIBASCENDCL_PATH, capacity};
    std::unique_ptr<Driver> driver = make();
    Physical physical = 0;
};

TEST_F(AclDriver, SaysWhatItIs) {
    EXPECT_EQ(driver->name(), "acl");
    EXPECT_EQ(driver->version(), "1.15.2");
    EXPECT_EQ(driver->uuid(), "");
    EXPECT_EQ(driver->granularity(), unit);
    EXPECT_FALSE(driver->copies_pageable());
    EXPECT_TRUE(driver->can_pin());
    EXPECT_FALSE(driver->can_digest());
    EXPECT_THROW(driver->digest({}, {}, nullptr), illegal_state);
}

TEST_F(AclDriver, MeasuresTheDeviceAndNotItself) {
    EXPECT_EQ(driver->memory().total, capacity);
    fake.squat(6 * mib);
    const Physical held_memory = driver->create(unit);
    EXPECT_EQ(driver->memory().free, capacity - 6 * mib - unit);
    driver->release(held_memory);
    EXPECT_EQ(driver->memory().free, capacity - 6 * mib);
}

TEST_F(AclDriver, ContentStaysWithThePhysicalMemoryWhileItsPlaceChanges) {
    const Address first = mapped(2 * unit);
    auto* bytes = reinterpret_cast<unsigned char*>(first);
    EXPECT_EQ(bytes[0], FAKE_POISON);
    std::memset(bytes, 7, 2 * unit);
    driver->unmap(first, 2 * unit);
    const Address second = driver->reserve(4 * unit);
    driver->map(second + unit, 2 * unit, physical);
    EXPECT_EQ(reinterpret_cast<unsigned char*>(second)[3 * unit - 1], 7);
    driver->unmap(second + unit, 2 * unit);
    driver->unreserve(first, 2 * unit);
    driver->unreserve(second, 4 * unit);
    driver->release(physical);
}

TEST_F(AclDriver, MemoryReleasedWhileMappedIsFreeOnceItIsUnmapped) {
    const Address address = mapped(unit);
    driver->release(physical);
    EXPECT_EQ(driver->memory().free, capacity - unit);
    driver->unmap(address, unit);
    EXPECT_EQ(driver->memory().free, capacity);
    driver->unreserve(address, unit);
}

TEST_F(AclDriver, AllowCallsNothing) {
    const unsigned long before = fake.calls(nullptr);
    driver->allow(0, unit);
    EXPECT_EQ(fake.calls(nullptr), before);
}

TEST_F(AclDriver, CopiesArriveWhenTheStreamIsSynchronised) {
    const Address device = mapped(unit);
    auto* up = static_cast<unsigned char*>(driver->host_alloc(unit));
    auto* down = static_cast<unsigned char*>(driver->host_alloc(unit));
    for (std::size_t i = 0; i < unit; ++i) up[i] = static_cast<unsigned char>(i * 31 >> 3);
    for (const Priority priority : {Priority::normal, Priority::low}) {
        std::memset(down, 0, unit);
        const Stream stream = driver->create_stream(priority);
        driver->copy_to_device(device, up, unit, stream);
        EXPECT_EQ(*reinterpret_cast<unsigned char*>(device + unit - 1),
                  priority == Priority::normal ? FAKE_POISON : up[unit - 1]);
        driver->copy_to_host(down, device, unit, stream);
        driver->synchronize(stream);
        EXPECT_EQ(std::memcmp(up, down, unit), 0);
        driver->destroy_stream(stream);
    }
    driver->host_free(up);
    driver->host_free(down);
    drop(device, unit);
}

TEST_F(AclDriver, SynchronizingTheDeviceWaitsForAllStreams) {
    const Address device = mapped(unit);
    auto* host = static_cast<unsigned char*>(driver->host_alloc(2 * 64));
    const Stream one = driver->create_stream(Priority::normal), two = driver->create_stream(Priority::normal);
    driver->copy_to_device(device, host, 64, one);
    driver->copy_to_device(device + 64, host + 64, 64, two);
    std::memset(host, 9, 2 * 64);
    driver->synchronize_device();
    EXPECT_EQ(*reinterpret_cast<unsigned char*>(device), 9);
    EXPECT_EQ(*reinterpret_cast<unsigned char*>(device + 64), 9);
    driver->destroy_stream(one);
    driver->destroy_stream(two);
    driver->host_free(host);
    drop(device, unit);
}

TEST_F(AclDriver, PinnedMemoryOfTheHostCanBeCopied) {
    const Address device = mapped(unit);
    void* host = driver->host().reserve(unit);
    driver->host().commit(host, unit);
    std::memset(host, 5, unit);
    driver->pin(host, unit);
    const Stream stream = driver->create_stream(Priority::normal);
    driver->copy_to_device(device, host, unit, stream);
    driver->synchronize(stream);
    EXPECT_EQ(*reinterpret_cast<unsigned char*>(device + unit - 1), 5);
    driver->destroy_stream(stream);
    driver->unpin(host, unit);
    driver->host().unreserve(host, unit);
    drop(device, unit);
}

TEST_F(AclDriver, AFullDeviceIsOutOfMemoryAndSaysHowMuchIsLeft) {
    fake.squat(capacity - unit);
    try {
        driver->create(2 * unit);
        ADD_FAILURE() << "there was room";
    } catch (const out_of_memory& failure) {
        EXPECT_EQ(failure.needed, 2 * unit);
        EXPECT_EQ(failure.available, unit);
    }
    driver->release(driver->create(unit));
}

TEST_F(AclDriver, NormalPagesServeWhereHugeOnesHaveRunOut) {
    fake.fail("aclrtMallocPhysical", no_memory);
    const Address address = mapped(unit);
    EXPECT_EQ(fake.calls("aclrtMallocPhysical"), 2u);
    EXPECT_EQ(fake.live("normal"), 1u);
    drop(address, unit);
    drop(mapped(unit), unit);
    EXPECT_EQ(fake.calls("aclrtMallocPhysical"), 3u);
}

TEST_F(AclDriver, MemoryThatNoPagesGiveIsOutOfMemoryWhateverTheSecondTrySays) {
    fake.fail("aclrtMallocPhysical", no_memory);
    fake.fail("aclrtMallocPhysical", 107016, 2);
    EXPECT_THROW(driver->create(unit), out_of_memory);
    EXPECT_EQ(fake.calls("aclrtMallocPhysical"), 2u);
}

TEST_F(AclDriver, NormalPagesAreNotTriedForOtherFailures) {
    fake.fail("aclrtMallocPhysical", 507899);
    EXPECT_THROW(driver->create(unit), driver_error);
    EXPECT_EQ(fake.calls("aclrtMallocPhysical"), 1u);
}

TEST_F(AclDriver, OutOfMemoryStandsEvenIfTheRestCantBeMeasured) {
    fake.fail("aclrtMallocPhysical", no_memory, 1, 2);
    fake.fail("aclrtGetMemInfo", 507899);
    try {
        driver->create(unit);
        ADD_FAILURE() << "there was room";
    } catch (const out_of_memory& failure) {
        EXPECT_EQ(failure.available, 0u);
    }
}

TEST_F(AclDriver, DeviceMemoryForAMappingAReservationOrAStreamCanRunOutToo) {
    const Address address = driver->reserve(unit);
    const Physical piece = driver->create(unit);
    for (const auto& [symbol, body] : std::vector<std::pair<const char*, std::function<void()>>>{
             {"aclrtMapMem", [&] { driver->map(address, unit, piece); }},
             {"aclrtReserveMemAddress", [&] { driver->reserve(unit); }},
             {"aclrtCreateStreamWithConfig", [&] { driver->create_stream(Priority::normal); }}}) {
        fake.fail(symbol, no_memory);
        EXPECT_THROW(body(), out_of_memory) << symbol;
    }
    driver->release(piece);
    driver->unreserve(address, unit);
}

TEST_F(AclDriver, HostMemoryThatCantBeHadIsNotTheDevicesLack) {
    fake.fail("aclrtMallocHost", no_memory);
    EXPECT_THROW(driver->host_alloc(unit), driver_error);
    fake.fail("aclrtHostRegisterV2", no_memory);
    void* host = driver->host().reserve(unit);
    EXPECT_THROW(driver->pin(host, unit), driver_error);
    driver->host().unreserve(host, unit);
}

TEST_F(AclDriver, EveryFailureOfTheLibraryIsToldByNameAndChangesNothing) {
    const Address address = driver->reserve(2 * unit);
    physical = driver->create(unit);
    const Physical other = driver->create(unit);
    driver->map(address, unit, physical);
    const Stream stream = driver->create_stream(Priority::normal);
    void* block = driver->host_alloc(unit);
    void* range = driver->host().reserve(2 * unit);
    auto* second = static_cast<unsigned char*>(range) + unit;
    driver->pin(range, unit);

    expect_failure("aclrtGetVersion", [&] { driver->version(); });
    expect_failure("aclrtGetMemInfo", [&] { driver->memory(); });
    expect_failure("aclrtReserveMemAddress", [&] { driver->reserve(unit); });
    expect_failure("aclrtReleaseMemAddress", [&] { driver->unreserve(address, 2 * unit); });
    expect_failure("aclrtMallocPhysical", [&] { driver->create(unit); });
    expect_failure("aclrtFreePhysical", [&] { driver->release(other); });
    expect_failure("aclrtMapMem", [&] { driver->map(address + unit, unit, other); });
    expect_failure("aclrtUnmapMem", [&] { driver->unmap(address, unit); });
    expect_failure("aclrtCreateStreamWithConfig", [&] { driver->create_stream(Priority::normal); });
    expect_failure("aclrtMemcpyAsync", [&] { driver->copy_to_device(address, block, unit, stream); });
    expect_failure("aclrtMemcpyAsync", [&] { driver->copy_to_host(block, address, unit, stream); });
    expect_failure("aclrtSynchronizeStream", [&] { driver->synchronize(stream); });
    expect_failure("aclrtSynchronizeDevice", [&] { driver->synchronize_device(); });
    expect_failure("aclrtMallocHost", [&] { driver->host_alloc(unit); });
    expect_failure("aclrtFreeHost", [&] { driver->host_free(block); });
    expect_failure("aclrtHostRegisterV2", [&] { driver->pin(second, unit); });
    expect_failure("aclrtHostUnregister", [&] { driver->unpin(range, unit); });

    fake.fail("aclrtDestroyStream", 507899);
    driver->destroy_stream(stream);  // says nothing
    EXPECT_EQ(fake.live("streams"), 1u);
    driver->destroy_stream(stream);
    driver->unpin(range, unit);
    driver->host().unreserve(range, 2 * unit);
    driver->host_free(block);
    driver->release(other);
    drop(address, unit);
}

TEST_F(AclDriver, AFailureWithoutWordsStillHasItsCode) {
    fake.fail("aclGetRecentErrMsg", 1);
    fake.fail("aclrtSynchronizeDevice", 507899);
    try {
        driver->synchronize_device();
        ADD_FAILURE();
    } catch (const driver_error& failure) {
        EXPECT_NE(std::string(failure.what()).find("507899"), std::string::npos);
    }
}

TEST_F(AclDriver, ALibraryThatSomebodyElseInitialisedWillDo) {
    make();
    EXPECT_EQ(fake.calls("aclInit"), 2u);
}

TEST_F(AclDriver, ADriverThatCantBeMadeSaysWhichCallFailed) {
    for (const char* symbol : {"aclInit", "aclrtSetDevice", "aclrtMemGetAllocationGranularity"}) {
        driver.reset();
        fake.reset(capacity);
        expect_failure(symbol, [&] { make(); });
    }
    // Asked twice: first for what the thread has, where an error only means nothing.
    driver.reset();
    fake.reset(capacity);
    fake.fail("aclrtGetCurrentContext", 507899, 1, 2);
    EXPECT_THROW(make(), driver_error);
}

TEST_F(AclDriver, ADeviceThatIsNotThereIsNamed) {
    for (const int device : {-1, 2}) {
        try {
            make(device);
            ADD_FAILURE() << "there is no device " << device;
        } catch (const driver_error& failure) {
            EXPECT_EQ(failure.call, "aclrtSetDevice");
            EXPECT_EQ(failure.code, 107001);
        }
    }
}

TEST_F(AclDriver, ADeviceWithoutRoomForAContextIsOutOfMemory) {
    fake.fail("aclrtSetDevice", no_memory);
    EXPECT_THROW(make(), out_of_memory);
}

TEST_F(AclDriver, AThreadWithoutAContextCanCall) {
    std::thread([&] { driver->release(driver->create(unit)); }).join();
    EXPECT_EQ(fake.calls("aclrtSetDevice"), 1u);
}

TEST_F(AclDriver, AThreadKeepsTheContextThatItHas) {
    using Get = int(void**);
    using Set = int(std::int32_t);
    std::thread([&] {
        void *before = nullptr, *after = nullptr;
        ASSERT_EQ(fake.call<Set>("aclrtSetDevice", std::int32_t{1}), 0);
        ASSERT_EQ(fake.call<Get>("aclrtGetCurrentContext", &before), 0);
        drop(mapped(unit), unit);  // of device 0: refused from a context of device 1
        ASSERT_EQ(fake.call<Get>("aclrtGetCurrentContext", &after), 0);
        EXPECT_EQ(before, after);
        make(0);
        ASSERT_EQ(fake.call<Get>("aclrtGetCurrentContext", &after), 0);
        EXPECT_EQ(before, after);
    }).join();
}

TEST_F(AclDriver, TwoDevicesWorkFromOneThread) {
    const auto other = make(1);
    const Stream here = driver->create_stream(Priority::normal), there = other->create_stream(Priority::low);
    driver->synchronize(here);
    other->synchronize(there);
    driver->destroy_stream(here);
    other->destroy_stream(there);
}

TEST_F(AclDriver, AContextThatCantBeMadeCurrentStopsTheCall) {
    std::thread([&] {
        fake.fail("aclrtSetCurrentContext", 107000);
        try {
            driver->memory();
            ADD_FAILURE() << "called without a context";
        } catch (const driver_error& failure) {
            EXPECT_EQ(failure.call, "aclrtSetCurrentContext");
        }
        const Stream stream = driver->create_stream(Priority::normal);
        std::thread([&] {
            fake.fail("aclrtSetCurrentContext", 107000);
            driver->destroy_stream(stream);  // says nothing
        }).join();
        EXPECT_EQ(fake.live("streams"), 1u);
        driver->destroy_stream(stream);
    }).join();
}

TEST_F(AclDriver, ManyThreadsCopyAtOnce) {
    std::vector<std::thread> threads;
    for (unsigned char i = 1; i <= 4; ++i)
        threads.emplace_back([this, i] {
            const Address address = driver->reserve(unit);
            const Physical piece = driver->create(unit);
            driver->map(address, unit, piece);
            auto* host = static_cast<unsigned char*>(driver->host_alloc(unit));
            const Stream stream = driver->create_stream(Priority::normal);
            for (int round = 0; round < 8; ++round) {
                std::memset(host, i, unit);
                driver->copy_to_device(address, host, unit, stream);
                driver->synchronize(stream);
                std::memset(host, 0, unit);
                driver->copy_to_host(host, address, unit, stream);
                driver->synchronize(stream);
                EXPECT_TRUE(std::all_of(host, host + unit, [i](unsigned char byte) { return byte == i; }));
            }
            driver->destroy_stream(stream);
            driver->host_free(host);
            driver->unmap(address, unit);
            driver->release(piece);
            driver->unreserve(address, unit);
        });
    for (std::thread& thread : threads) thread.join();
}

TEST_F(AclDriver, ALowPriorityThatFailsOnceIsDoneWithout) {
    fake.fail("aclrtCreateStreamWithConfig", 107000);
    const Stream stream = driver->create_stream(Priority::low);
    EXPECT_EQ(fake.calls("aclrtCreateStreamWithConfig"), 2u);
    driver->destroy_stream(stream);
}

TEST(AclDriverLibrary, AMissingLibraryIsToldInTheLoadersWords) {
    try {
        make_acl_driver({.library = "/nowhere/libascendcl.so"});
        FAIL() << "there is no such library";
    } catch (const driver_error& failure) {
        EXPECT_EQ(failure.call, "dlopen");
        EXPECT_NE(std::string(failure.what()).find("/nowhere/libascendcl.so"), std::string::npos);
    }
}

TEST(AclDriverLibrary, ALibraryThatIsNoAscendClIsToldByTheSymbolThatItLacks) {
    try {
        make_acl_driver({.library = "libc.so.6"});
        FAIL() << "libc is no AscendCL";
    } catch (const driver_error& failure) {
        EXPECT_EQ(failure.call, "aclInit");
    }
}

TEST(AclDriverLibrary, AnOldCannWorksWithWhatItHas) {
    const FakeAcl old(FAKE_LIBASCENDCL_OLD_PATH, capacity);
    ASSERT_FALSE(old.has("aclrtHostRegisterV2"));
    ASSERT_FALSE(old.has("aclGetRecentErrMsg"));
    const auto driver = make_acl_driver({.library = old.path});
    EXPECT_EQ(driver->version(), "");
    EXPECT_FALSE(driver->can_pin());
    EXPECT_THROW(driver->pin(nullptr, unit), illegal_state);
    EXPECT_THROW(driver->unpin(nullptr, unit), illegal_state);
    driver->destroy_stream(driver->create_stream(Priority::low));  // where only priority 0 is taken
    old.fail("aclrtSynchronizeDevice", 507899);
    EXPECT_THROW(driver->synchronize_device(), driver_error);
    EXPECT_EQ(old.violations(), 0u) << old.last_violation();
    EXPECT_EQ(old.live("streams"), 0u);
}

}  // namespace
}  // namespace dormouse
