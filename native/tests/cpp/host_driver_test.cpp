#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <functional>
#include <random>
#include <thread>
#include <vector>

#include "dormouse/digest.hpp"
#include "dormouse/driver.hpp"
#include "dormouse/error.hpp"
#include "process_memory.hpp"

namespace dormouse {
namespace {

constexpr std::size_t mib = std::size_t{1} << 20;
constexpr std::size_t unit = 2 * mib;

// The call must fail as driver_error "host.<call>" with this code.
void expect_refused(const std::string& call, int code, const std::function<void()>& body) {
    try {
        body();
        ADD_FAILURE() << call << " was not refused";
    } catch (const driver_error& failure) {
        EXPECT_EQ(failure.call, "host." + call);
        EXPECT_EQ(failure.code, code) << failure.what();
    }
}

class HostDriver : public testing::Test {
   protected:
    struct Chunk {
        Address address;
        std::size_t bytes;
        Physical physical;
    };

    Chunk mapped(std::size_t bytes) {
        const Address address = driver->reserve(bytes);
        const Physical physical = driver->create(bytes);
        driver->map(address, bytes, physical);
        driver->allow(address, bytes);
        return {address, bytes, physical};
    }

    void drop(const Chunk& chunk) {
        driver->unmap(chunk.address, chunk.bytes);
        driver->release(chunk.physical);
        driver->unreserve(chunk.address, chunk.bytes);
    }

    std::unique_ptr<Driver> driver = make_host_driver({.device = 0, .library = {}, .capacity = 128 * mib});
};

TEST_F(HostDriver, BytesGoThereAndComeBack) {
    const auto chunk = mapped(8 * mib);
    std::mt19937_64 random(1);
    std::vector<std::uint64_t> out(mib), in(mib);
    for (auto& word : out) {
        word = random();
    }
    const Stream stream = driver->create_stream(Priority::low);
    driver->copy_to_device(chunk.address, out.data(), 8 * mib, stream);
    driver->copy_to_host(in.data(), chunk.address, 8 * mib, stream);
    driver->synchronize(stream);
    driver->synchronize_device();
    EXPECT_EQ(in, out);
    EXPECT_EQ(std::memcmp(reinterpret_cast<void*>(chunk.address), out.data(), 8 * mib), 0) << "RAM is the device";
    driver->destroy_stream(stream);
    drop(chunk);
}

TEST_F(HostDriver, ResidentMemoryFallsAtUnmap) {
    const auto before = resident_bytes();
    const auto chunk = mapped(64 * mib);
    EXPECT_LT(resident_bytes(), before + mib) << "a mapping takes no page before it is used";
    ASSERT_TRUE(write_zeros(reinterpret_cast<void*>(chunk.address), chunk.bytes));
    *reinterpret_cast<char*>(chunk.address) = 3;
    EXPECT_GE(resident_bytes(), before + 63 * mib);
    driver->unmap(chunk.address, chunk.bytes);
    EXPECT_LT(resident_bytes(), before + mib);
    driver->map(chunk.address, chunk.bytes, chunk.physical);
    driver->allow(chunk.address, chunk.bytes);
    EXPECT_EQ(*reinterpret_cast<char*>(chunk.address), 0) << "the same place, fresh pages";
    drop(chunk);
}

TEST_F(HostDriver, MemoryOutsideOfAMappingFaults) {
    const Address address = driver->reserve(unit);
    const auto look = [&] { return peek(reinterpret_cast<void*>(address)); };
    EXPECT_EQ(look(), -1) << "reserved";
    const Physical physical = driver->create(unit);
    driver->map(address, unit, physical);
    EXPECT_EQ(look(), -1) << "mapped, not allowed";
    driver->allow(address, unit);
    EXPECT_EQ(look(), 0);
    driver->unmap(address, unit);
    EXPECT_EQ(look(), -1) << "unmapped";
}

TEST_F(HostDriver, CapacityIsFiniteAndComesBackWithRelease) {
    EXPECT_EQ(driver->memory().total, 128 * mib);
    EXPECT_EQ(driver->memory().free, 128 * mib);
    const Physical most = driver->create(120 * mib);
    EXPECT_EQ(driver->memory().free, 8 * mib);
    try {
        driver->create(10 * mib);
        ADD_FAILURE() << "no room for it";
    } catch (const out_of_memory& failure) {
        EXPECT_EQ(failure.needed, 10 * mib);
        EXPECT_EQ(failure.available, 8 * mib);
    }
    EXPECT_EQ(driver->memory().free, 8 * mib);
    driver->release(driver->create(8 * mib));
    driver->release(most);
    EXPECT_EQ(driver->memory().free, 128 * mib);
}

TEST_F(HostDriver, DefaultCapacityIsMostOfTheMachineAndNeverMoreThanItHasLeft) {
    const auto usual = make_host_driver({});
    const auto memory = usual->memory();
    const auto installed =
        static_cast<std::size_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    EXPECT_EQ(memory.total, installed / 4 * 3);
    EXPECT_LE(memory.free, memory.total);
    EXPECT_THROW(usual->create(installed / unit * unit + unit), out_of_memory);
}

TEST_F(HostDriver, SizesAndAddressesAreMultiplesOfTheGranularity) {
    EXPECT_EQ(driver->granularity(), unit);
    const Address address = driver->reserve(2 * unit);
    const Physical physical = driver->create(unit);
    expect_refused("reserve", EINVAL, [&] { driver->reserve(unit + 1); });
    expect_refused("reserve", EINVAL, [&] { driver->reserve(0); });
    expect_refused("create", EINVAL, [&] { driver->create(4096); });
    expect_refused("create", EINVAL, [&] { driver->create(0); });
    expect_refused("map", EINVAL, [&] { driver->map(address + 4096, unit, physical); });
    expect_refused("map", EINVAL, [&] { driver->map(address, unit - 4096, physical); });
    expect_refused("allow", EINVAL, [&] { driver->allow(address, 1); });
    expect_refused("unmap", EINVAL, [&] { driver->unmap(address, 1); });
    driver->map(address, unit, physical);  // nothing of that has changed anything
}

TEST_F(HostDriver, AddressSpaceThatDoesNotFitIsRefused) {
    expect_refused("reserve", ENOMEM, [&] { driver->reserve(std::size_t{1} << 60); });
}

TEST_F(HostDriver, AMappingLiesWithinOneReservation) {
    const Address address = driver->reserve(unit);
    const Physical one = driver->create(unit), two = driver->create(2 * unit);
    expect_refused("map", EFAULT, [&] { driver->map(address + (Address{1} << 40), unit, one); });
    expect_refused("map", EFAULT, [&] { driver->map(unit, unit, one); });
    expect_refused("map", EFAULT, [&] { driver->map(address, 2 * unit, two); });
}

TEST_F(HostDriver, NothingIsMappedTwice) {
    const Address address = driver->reserve(4 * unit);
    const Physical one = driver->create(2 * unit), other = driver->create(2 * unit);
    driver->map(address + unit, 2 * unit, one);
    expect_refused("map", EBUSY, [&] { driver->map(address + unit, 2 * unit, other); });
    expect_refused("map", EBUSY, [&] { driver->map(address, 2 * unit, other); });
    expect_refused("map", EBUSY, [&] { driver->map(address + 2 * unit, 2 * unit, other); });
    const Address elsewhere = driver->reserve(2 * unit);
    expect_refused("map", EBUSY, [&] { driver->map(elsewhere, 2 * unit, one); });
    driver->map(elsewhere, 2 * unit, other);
}

TEST_F(HostDriver, AMappingHasTheSizeOfItsMemory) {
    const Address address = driver->reserve(2 * unit);
    const Physical physical = driver->create(2 * unit);
    expect_refused("map", EINVAL, [&] { driver->map(address, unit, physical); });
}

TEST_F(HostDriver, AMappingIsUnmappedWhole) {
    const Address address = driver->reserve(4 * unit);
    driver->map(address, 2 * unit, driver->create(2 * unit));
    driver->map(address + 2 * unit, 2 * unit, driver->create(2 * unit));
    driver->allow(address, 4 * unit);  // neighbours may be allowed together
    std::memset(reinterpret_cast<void*>(address), 1, 4 * unit);
    expect_refused("unmap", EFAULT, [&] { driver->unmap(address, unit); });
    expect_refused("unmap", EFAULT, [&] { driver->unmap(address + unit, unit); });
    expect_refused("unmap", EFAULT, [&] { driver->unmap(address, 4 * unit); });
    EXPECT_EQ(*reinterpret_cast<char*>(address + unit), 1) << "a refused unmap takes nothing";
    driver->unmap(address, 2 * unit);
    expect_refused("unmap", EFAULT, [&] { driver->unmap(address, 2 * unit); });
    EXPECT_EQ(*reinterpret_cast<char*>(address + 2 * unit), 1) << "nor does the neighbour's";
}

TEST_F(HostDriver, OnlyWholeMappingsAreAllowed) {
    const Address address = driver->reserve(4 * unit);
    driver->map(address, 2 * unit, driver->create(2 * unit));
    expect_refused("allow", EFAULT, [&] { driver->allow(address, unit); });
    expect_refused("allow", EFAULT, [&] { driver->allow(address, 3 * unit); });
    expect_refused("allow", EFAULT, [&] { driver->allow(address + 2 * unit, unit); });
    driver->allow(address, 2 * unit);
}

TEST_F(HostDriver, MemoryIsFreeOnceReleasedAndUnmappedInEitherOrderEachOnce) {
    EXPECT_TRUE(driver->mapping_keeps_memory());
    for (const bool release_first : {false, true}) {
        const auto chunk = mapped(unit);
        *reinterpret_cast<char*>(chunk.address) = 1;
        const auto release = [&] { driver->release(chunk.physical); };
        const auto unmap = [&] { driver->unmap(chunk.address, chunk.bytes); };
        expect_refused("unreserve", EBUSY, [&] { driver->unreserve(chunk.address, chunk.bytes); });
        if (release_first) {
            release();
            expect_refused("release", EINVAL, release);
            expect_refused("map", EINVAL, [&] { driver->map(chunk.address, chunk.bytes, chunk.physical); });
            EXPECT_EQ(*reinterpret_cast<char*>(chunk.address), 1) << "the mapping keeps it";
        } else {
            unmap();
            expect_refused("unmap", EFAULT, unmap);
        }
        EXPECT_EQ(driver->memory().free, 128 * mib - unit) << release_first;
        release_first ? unmap() : release();
        EXPECT_EQ(driver->memory().free, 128 * mib) << release_first;
        expect_refused("unmap", EFAULT, unmap);
        expect_refused("release", EINVAL, release);
        expect_refused("map", EINVAL, [&] { driver->map(chunk.address, chunk.bytes, chunk.physical); });
        driver->unreserve(chunk.address, chunk.bytes);
    }
    expect_refused("release", EINVAL, [&] { driver->release(12345); });
}

TEST_F(HostDriver, OnlyAWholeReservationIsGivenBack) {
    const Address address = driver->reserve(2 * unit);
    expect_refused("unreserve", EFAULT, [&] { driver->unreserve(address, unit); });
    expect_refused("unreserve", EFAULT, [&] { driver->unreserve(address + unit, unit); });
    driver->unreserve(address, 2 * unit);
    expect_refused("unreserve", EFAULT, [&] { driver->unreserve(address, 2 * unit); });
}

TEST_F(HostDriver, CopiesTouchOnlyAllowedMemory) {
    const Address address = driver->reserve(4 * unit);
    std::vector<char> bytes(4 * unit);
    expect_refused("copy_to_device", EFAULT, [&] { driver->copy_to_device(address, bytes.data(), 1, nullptr); });
    driver->map(address, unit, driver->create(unit));
    driver->map(address + unit, unit, driver->create(unit));
    expect_refused("copy_to_host", EFAULT, [&] { driver->copy_to_host(bytes.data(), address, 1, nullptr); });
    driver->allow(address, unit);
    driver->copy_to_host(bytes.data(), address + 100, unit - 100, nullptr);
    expect_refused("copy_to_host", EFAULT, [&] { driver->copy_to_host(bytes.data(), address, unit + 1, nullptr); });
    driver->allow(address + unit, unit);
    driver->copy_to_device(address + 100, bytes.data(), unit, nullptr);  // over the seam of two mappings
    expect_refused("copy_to_device", EFAULT,
                   [&] { driver->copy_to_device(address + 1, bytes.data(), 2 * unit, nullptr); });
    expect_refused("copy_to_device", EFAULT,
                   [&] { driver->copy_to_device(~Address{0}, bytes.data(), 2 * unit, nullptr); });
    std::uint64_t sum = 0;
    const Range beyond{address + unit, 2 * unit};
    expect_refused("digest", EFAULT, [&] { driver->digest({&beyond, 1}, {&sum, 1}, nullptr); });
}

TEST_F(HostDriver, AStreamIsKnownOnlyWhileItLives) {
    const Stream stream = driver->create_stream(Priority::normal);
    EXPECT_NE(stream, nullptr);
    EXPECT_NE(driver->create_stream(Priority::normal), stream);
    driver->destroy_stream(stream);
    expect_refused("synchronize", EINVAL, [&] { driver->synchronize(stream); });
    char byte = 0;
    expect_refused("copy_to_host", EINVAL, [&] { driver->copy_to_host(&byte, 0, 1, stream); });
}

TEST_F(HostDriver, DigestsAgreeWithDigestOfForManyRangesOfAnySize) {
    const auto chunk = mapped(32 * mib);
    std::mt19937_64 random(2);
    auto* words = reinterpret_cast<std::uint64_t*>(chunk.address);
    for (std::size_t i = 0; i < chunk.bytes / 8; ++i) {
        words[i] = random();
    }
    ASSERT_TRUE(driver->can_digest());
    const std::vector<Range> ranges = {{chunk.address, 32 * mib},  // by threads
                                       {chunk.address + 16, 16},
                                       {chunk.address + 4096, 0},
                                       {chunk.address + 5 * mib + 32, 9 * mib + 48}};
    std::vector<std::uint64_t> sums(ranges.size());
    driver->digest(ranges, sums, nullptr);
    for (std::size_t i = 0; i < ranges.size(); ++i) {
        EXPECT_EQ(sums[i], digest_of(reinterpret_cast<void*>(ranges[i].address), ranges[i].bytes)) << i;
    }
    words[12345] ^= 1;
    const auto before = sums[0];
    driver->digest({ranges.data(), 1}, {sums.data(), 1}, nullptr);
    EXPECT_NE(sums[0], before);
    driver->digest({}, {}, nullptr);
}

TEST_F(HostDriver, UnalignedOrMismatchedDigestsAreRefused) {
    const auto chunk = mapped(unit);
    std::vector<std::uint64_t> sums(2);
    const std::vector<Range> odd_size = {{chunk.address, 24}}, odd_place = {{chunk.address + 4, 16}};
    expect_refused("digest", EINVAL, [&] { driver->digest(odd_size, {sums.data(), 1}, nullptr); });
    expect_refused("digest", EINVAL, [&] { driver->digest(odd_place, {sums.data(), 1}, nullptr); });
    expect_refused("digest", EINVAL, [&] { driver->digest(odd_size, sums, nullptr); });
}

TEST_F(HostDriver, HostMemoryIsUsableAndFreedOnce) {
    auto* memory = static_cast<char*>(driver->host_alloc(3 * mib + 5));
    std::memset(memory, 1, 3 * mib + 5);
    driver->pin(memory, mib);
    driver->unpin(memory, mib);
    driver->host_free(memory);
    expect_refused("host_free", EINVAL, [&] { driver->host_free(memory); });
    EXPECT_TRUE(driver->can_pin());
    EXPECT_TRUE(driver->copies_pageable());
}

// RLIMIT_DATA counts writable private memory, so the kernel refuses to make more of it.
TEST_F(HostDriver, AKernelThatRefusesIsReportedAndNothingHasChanged) {
    constexpr std::size_t much = 1024 * mib;
    driver = make_host_driver({.device = 0, .library = {}, .capacity = much});
    const Address address = driver->reserve(much);
    const Physical physical = driver->create(much);
    driver->map(address, much, physical);
    rlimit old{};
    ASSERT_EQ(getrlimit(RLIMIT_DATA, &old), 0);
    const rlimit tight{data_bytes() + 256 * mib, old.rlim_max};
    ASSERT_EQ(setrlimit(RLIMIT_DATA, &tight), 0);
    expect_refused("allow", ENOMEM, [&] { driver->allow(address, much); });
    EXPECT_THROW(driver->host_alloc(much), host_out_of_memory);
    ASSERT_EQ(setrlimit(RLIMIT_DATA, &old), 0);
    std::uint64_t sum = 0;
    const Range range{address, 16};
    expect_refused("digest", EFAULT, [&] { driver->digest({&range, 1}, {&sum, 1}, nullptr); });
    driver->allow(address, much);
    driver->unmap(address, much);
    driver->release(physical);
}

TEST_F(HostDriver, AForkedChildDoesNotHaveTheDevicesMemory) {
    const auto chunk = mapped(unit);
    auto* byte = reinterpret_cast<char*>(chunk.address + mib);
    *byte = 42;
    EXPECT_EQ(peek(byte), 42);
    EXPECT_EQ(in_child([&] { return peek(byte) == 42 ? 4 : 3; }), 3);
}

TEST_F(HostDriver, ADriverThatEndsGivesItsAddressesBack) {
    const auto chunk = mapped(unit);
    auto* byte = reinterpret_cast<char*>(chunk.address + mib);
    *byte = 42;
    driver.reset();
    EXPECT_NE(peek(byte), 42);
}

TEST_F(HostDriver, ThreadsDoNotDisturbOneAnother) {
    std::vector<std::jthread> threads;
    for (char mark = 1; mark <= 4; ++mark) {
        threads.emplace_back([this, mark] {
            std::vector<char> back(2 * unit);
            const std::vector<char> there(2 * unit, mark);
            for (int i = 0; i < 20; ++i) {
                const auto chunk = mapped(2 * unit);
                const Stream stream = driver->create_stream(Priority::normal);
                driver->copy_to_device(chunk.address, there.data(), there.size(), stream);
                driver->copy_to_host(back.data(), chunk.address, back.size(), stream);
                EXPECT_EQ(back, there);
                driver->destroy_stream(stream);
                drop(chunk);
            }
        });
    }
    threads.clear();
    EXPECT_EQ(driver->memory().free, 128 * mib);
}

}  // namespace
}  // namespace dormouse
