// The CUDA driver against the fake libcuda.so.1, which enforces the vendor's rules, fails on demand and counts what is
// held. Every test ends with no rule broken and nothing left.
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <functional>
#include <numeric>
#include <random>
#include <thread>

#include "dormouse/digest.hpp"
#include "dormouse/driver.hpp"
#include "dormouse/error.hpp"
#include "fake_control.h"

namespace dormouse {
namespace {

constexpr std::size_t mib = std::size_t{1} << 20;
constexpr std::size_t chunk = 4 * mib;
constexpr std::size_t capacity = 256 * mib;
constexpr int illegal_address = 700;
constexpr int out_of_memory_code = 2;
constexpr int deinitialized = 4;

// The fake's controls, in the very library that the driver loads.
template <typename Function>
Function* control(const char* name) {
    static void* const library = dlopen(FAKE_LIBCUDA_PATH, RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) throw std::runtime_error(dlerror());
    return reinterpret_cast<Function*>(dlsym(library, name));
}
#define CONTROL(name) control<decltype(::name)>(#name)

DriverOptions options() {
    DriverOptions made;
    made.library = FAKE_LIBCUDA_PATH;
    return made;
}

class CudaDriver : public ::testing::Test {
   protected:
    void SetUp() override {
        CONTROL(fake_reset)(capacity);
        driver = make_cuda_driver(options());
    }

    void TearDown() override {
        driver.reset();
        EXPECT_EQ(CONTROL(fake_violations)(), 0U) << CONTROL(fake_last_violation)();
        for (const char* what : {"handles", "mappings", "reservations", "pinned", "streams", "bytes", "host", "modules",
                                 "allocations", "contexts"})
            EXPECT_EQ(CONTROL(fake_live)(what), 0U) << what;
    }

    // Device memory with a place, ready for copies; and its end.
    Address make(std::size_t bytes) {
        const Address address = driver->reserve(bytes);
        const Physical physical = driver->create(bytes);
        driver->map(address, bytes, physical);
        driver->allow(address, bytes);
        driver->release(physical);  // the mapping keeps it
        return address;
    }
    void drop(Address address, std::size_t bytes) {
        driver->unmap(address, bytes);
        driver->unreserve(address, bytes);
    }

    std::unique_ptr<Driver> driver;
};

TEST_F(CudaDriver, SaysWhatItIs) {
    EXPECT_EQ(driver->name(), "cuda");
    EXPECT_EQ(driver->version(), "12.8");
    EXPECT_EQ(driver->uuid(), "GPU-00112233-4455-6677-8899-aabbccddeeff");
    EXPECT_EQ(driver->granularity(), 2 * mib);
    EXPECT_TRUE(driver->can_pin());
    EXPECT_FALSE(driver->copies_pageable());
    EXPECT_EQ(&driver->host(), &posix_memory());
    EXPECT_EQ(&driver->clock(), &real_clock());
}

TEST_F(CudaDriver, MeasuresTheDevicesMemory) {
    EXPECT_EQ(driver->memory().total, capacity);
    EXPECT_EQ(driver->memory().free, capacity);
    const Physical physical = driver->create(chunk);
    EXPECT_EQ(driver->memory().free, capacity - chunk);
    driver->release(physical);
    EXPECT_EQ(driver->memory().free, capacity);
}

TEST_F(CudaDriver, BytesComeBackAsTheyWentAlsoAfterNewPhysicalMemoryAtTheSameAddress) {
    const Address address = make(chunk);
    auto* const host = static_cast<unsigned char*>(driver->host_alloc(chunk));
    std::iota(host, host + chunk, static_cast<unsigned char>(3));
    const std::vector<unsigned char> before(host, host + chunk);
    const Stream stream = driver->create_stream(Priority::normal);
    driver->copy_to_device(address, host, chunk, stream);
    driver->synchronize(stream);
    std::fill_n(host, chunk, static_cast<unsigned char>(0));
    driver->copy_to_host(host, address, chunk, stream);
    driver->synchronize(stream);
    EXPECT_TRUE(std::equal(before.begin(), before.end(), host));

    driver->unmap(address, chunk);
    const Physical physical = driver->create(chunk);
    driver->map(address, chunk, physical);
    driver->allow(address, chunk);
    driver->release(physical);
    driver->copy_to_host(host, address, chunk, stream);
    driver->synchronize(stream);
    EXPECT_EQ(host[0], FAKE_POISON) << "new memory, not the old";
    drop(address, chunk);
    driver->destroy_stream(stream);
    driver->host_free(host);
}

TEST_F(CudaDriver, CopiesUseMemoryThatItPinned) {
    const Address address = make(chunk);
    void* const host = driver->host().reserve(chunk);
    driver->host().commit(host, chunk);
    driver->pin(host, chunk);
    const Stream stream = driver->create_stream(Priority::low);
    driver->copy_to_host(host, address, chunk, stream);
    driver->synchronize_device();
    EXPECT_EQ(*static_cast<unsigned char*>(host), FAKE_POISON);
    EXPECT_EQ(CONTROL(fake_live)("pinned"), 1U);
    driver->unpin(host, chunk);
    EXPECT_EQ(CONTROL(fake_live)("pinned"), 0U);
    driver->host().unreserve(host, chunk);
    driver->destroy_stream(stream);
    drop(address, chunk);
}

TEST_F(CudaDriver, WorksOnThreadsThatNeverSawTheDevice) {
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i) {
        threads.emplace_back([this] {
            const Address address = make(chunk);
            const Stream stream = driver->create_stream(Priority::normal);
            driver->synchronize(stream);
            driver->destroy_stream(stream);
            drop(address, chunk);
        });
    }
    for (std::thread& thread : threads) thread.join();
}

TEST_F(CudaDriver, TwoDriversOfOneDeviceShareItsContextAndEndApart) {
    auto other = make_cuda_driver(options());
    EXPECT_EQ(CONTROL(fake_live)("contexts"), 2U) << "retained twice";
    EXPECT_TRUE(other->can_digest());
    other.reset();
    EXPECT_EQ(CONTROL(fake_live)("contexts"), 1U);
    EXPECT_EQ(driver->memory().total, capacity);
}

// A driver with something of everything, for the calls below to work on.
struct Things {
    explicit Things(Driver& the) : driver(the) {
        place = driver.reserve(chunk);
        mapped = driver.reserve(chunk);
        physical = driver.create(chunk);
        const Physical under = driver.create(chunk);
        driver.map(mapped, chunk, under);
        driver.allow(mapped, chunk);
        driver.release(under);
        stream = driver.create_stream(Priority::normal);
        pinned = driver.host_alloc(chunk);
        loose = driver.host().reserve(chunk);
        driver.host().commit(loose, chunk);
    }
    ~Things() {
        driver.host_free(pinned);
        driver.host().unreserve(loose, chunk);
        driver.destroy_stream(stream);
        driver.release(physical);
        driver.unmap(mapped, chunk);
        driver.unreserve(mapped, chunk);
        driver.unreserve(place, chunk);
    }
    Things(const Things&) = delete;
    Things& operator=(const Things&) = delete;

    void digest() {
        const Range range{mapped, chunk};
        std::uint64_t out = 0;
        driver.digest({&range, 1}, {&out, 1}, stream);
    }

    Driver& driver;
    Address place = 0, mapped = 0;
    Physical physical = 0;
    Stream stream = nullptr;
    void *pinned = nullptr, *loose = nullptr;
};

struct Operation {
    const char* call;
    bool takes_device_memory;
    std::function<void(Things&)> act;
};

void PrintTo(const Operation& operation, std::ostream* out) {
    *out << operation.call;
}

const std::vector<Operation> operations{
    {"cuDriverGetVersion", false, [](Things& my) { my.driver.version(); }},
    {"cuDeviceGetUuid_v2", false, [](Things& my) { my.driver.uuid(); }},
    {"cuCtxGetCurrent", false, [](Things& my) { my.driver.memory(); }},
    {"cuMemGetInfo_v2", false, [](Things& my) { my.driver.memory(); }},
    {"cuMemAddressReserve", false, [](Things& my) { my.driver.reserve(chunk); }},
    {"cuMemAddressFree", false, [](Things& my) { my.driver.unreserve(my.place, chunk); }},
    {"cuMemCreate", true, [](Things& my) { my.driver.create(chunk); }},
    {"cuMemRelease", false, [](Things& my) { my.driver.release(my.physical); }},
    {"cuMemMap", true, [](Things& my) { my.driver.map(my.place, chunk, my.physical); }},
    {"cuMemSetAccess", true, [](Things& my) { my.driver.allow(my.mapped, chunk); }},
    {"cuMemUnmap", false, [](Things& my) { my.driver.unmap(my.mapped, chunk); }},
    {"cuCtxGetStreamPriorityRange", false, [](Things& my) { my.driver.create_stream(Priority::low); }},
    {"cuStreamCreateWithPriority", true, [](Things& my) { my.driver.create_stream(Priority::normal); }},
    {"cuStreamSynchronize", false, [](Things& my) { my.driver.synchronize(my.stream); }},
    {"cuStreamQuery", false, [](Things& my) { my.driver.idle(my.stream); }},
    {"cuCtxSynchronize", false, [](Things& my) { my.driver.synchronize_device(); }},
    {"cuMemcpyHtoDAsync_v2", false, [](Things& my) { my.driver.copy_to_device(my.mapped, my.pinned, 8, my.stream); }},
    {"cuMemcpyDtoHAsync_v2", false, [](Things& my) { my.driver.copy_to_host(my.pinned, my.mapped, 8, my.stream); }},
    {"cuMemHostAlloc", false, [](Things& my) { my.driver.host_alloc(chunk); }},
    {"cuMemFreeHost", false, [](Things& my) { my.driver.host_free(my.pinned); }},
    {"cuMemHostRegister_v2", false, [](Things& my) { my.driver.pin(my.loose, chunk); }},
    {"cuMemHostUnregister", false, [](Things& my) { my.driver.unpin(my.loose, chunk); }},
    {"cuMemsetD8Async", true, [](Things& my) { my.digest(); }},
    {"cuLaunchKernel", true, [](Things& my) { my.digest(); }},
};

class CudaDriverCall : public CudaDriver, public ::testing::WithParamInterface<Operation> {};

TEST_P(CudaDriverCall, AFailureIsADriverErrorThatNamesCallAndCodeAndIsNotRemembered) {
    Things things(*driver);
    ASSERT_TRUE(driver->can_digest());
    CONTROL(fake_fail)(GetParam().call, 1, illegal_address, 1);
    try {
        GetParam().act(things);
        FAIL() << "the failure was lost";
    } catch (const driver_error& error) {
        EXPECT_EQ(error.call, GetParam().call);
        EXPECT_EQ(error.code, illegal_address);
        EXPECT_NE(std::string(error.what()).find("CUDA_ERROR_ILLEGAL_ADDRESS: an illegal memory access"),
                  std::string::npos)
            << error.what();
    }
    EXPECT_EQ(driver->memory().total, capacity);
    EXPECT_NO_THROW(things.digest());
}

TEST_P(CudaDriverCall, ALackOfMemoryIsTheDevicesOnlyWhereTheDevicesMemoryIsTaken) {
    Things things(*driver);
    ASSERT_TRUE(driver->can_digest());
    const std::size_t free = driver->memory().free;
    CONTROL(fake_fail)(GetParam().call, 1, out_of_memory_code, 1);
    try {
        GetParam().act(things);
        FAIL() << "the failure was lost";
    } catch (const out_of_memory& error) {
        EXPECT_TRUE(GetParam().takes_device_memory) << error.what();
        EXPECT_EQ(error.available, free);
        EXPECT_NE(std::string(error.what()).find(GetParam().call), std::string::npos) << error.what();
    } catch (const driver_error& error) {
        EXPECT_FALSE(GetParam().takes_device_memory) << error.what();
        EXPECT_EQ(error.code, out_of_memory_code);
    }
}

INSTANTIATE_TEST_SUITE_P(Each, CudaDriverCall, ::testing::ValuesIn(operations),
                         [](const auto& one) { return std::string(one.param.call); });

TEST_F(CudaDriver, TooMuchMemoryIsRefusedWithBothNumbers) {
    CONTROL(fake_squat)(capacity - 2 * chunk);
    try {
        driver->create(3 * chunk);
        FAIL() << "there was no room";
    } catch (const out_of_memory& error) {
        EXPECT_EQ(error.needed, 3 * chunk);
        EXPECT_EQ(error.available, 2 * chunk);
    }
    const Physical physical = driver->create(2 * chunk);
    driver->release(physical);
}

TEST_F(CudaDriver, ACodeThatTheLibraryDoesNotKnowIsStillReported) {
    CONTROL(fake_fail)("cuMemCreate", 1, 987, 1);
    try {
        driver->create(chunk);
        FAIL() << "the failure was lost";
    } catch (const driver_error& error) {
        EXPECT_EQ(error.code, 987);
        EXPECT_NE(std::string(error.what()).find("unknown error"), std::string::npos) << error.what();
    }
}

TEST_F(CudaDriver, AStreamThatCannotBeDestroyedThrowsNothing) {
    const Stream stream = driver->create_stream(Priority::normal);
    CONTROL(fake_fail)("cuStreamDestroy_v2", 1, illegal_address, 1);
    driver->destroy_stream(stream);
    CONTROL(fake_fail)("cuCtxGetCurrent", 1, illegal_address, 1);
    driver->destroy_stream(stream);
    EXPECT_EQ(CONTROL(fake_live)("streams"), 1U);
    driver->destroy_stream(stream);
}

TEST_F(CudaDriver, EndsQuietlyAfterItsLibraryDid) {
    ASSERT_TRUE(driver->can_digest());
    CONTROL(fake_fail)(nullptr, 1, deinitialized, 1000);
    driver.reset();
    CONTROL(fake_reset)(capacity);
}

class CudaDriverStart : public CudaDriver, public ::testing::WithParamInterface<const char*> {};

TEST_P(CudaDriverStart, ThatFailsNamesItsCallAndLeavesNothing) {
    driver.reset();
    // A thread of its own: one that never had a context, so that setting it is part of the start.
    std::thread([this] {
        CONTROL(fake_fail)(GetParam(), 1, illegal_address, 1);
        try {
            make_cuda_driver(options());
            ADD_FAILURE() << "the failure was lost";
        } catch (const driver_error& error) {
            EXPECT_EQ(error.call, GetParam());
            EXPECT_EQ(error.code, illegal_address);
        }
    }).join();
    EXPECT_EQ(CONTROL(fake_live)("contexts"), 0U);
    EXPECT_NO_THROW(make_cuda_driver(options()));
}

INSTANTIATE_TEST_SUITE_P(Each, CudaDriverStart,
                         ::testing::Values("cuInit", "cuDeviceGet", "cuDeviceGetAttribute", "cuDevicePrimaryCtxRetain",
                                           "cuCtxGetCurrent", "cuCtxSetCurrent", "cuMemGetAllocationGranularity"),
                         [](const auto& one) { return std::string(one.param); });

TEST(CudaDriverLibrary, ThatIsMissingIsNamed) {
    DriverOptions missing;
    missing.library = "/nowhere/libcuda.so.1";
    try {
        make_cuda_driver(missing);
        FAIL() << "loaded what is not there";
    } catch (const driver_error& error) {
        EXPECT_EQ(error.call, "dlopen");
        EXPECT_NE(std::string(error.what()).find("/nowhere/libcuda.so.1"), std::string::npos) << error.what();
    }
}

TEST(CudaDriverLibrary, ThatLacksASymbolIsNamedWithIt) {
    DriverOptions other;
    other.library = "libm.so.6";
    try {
        make_cuda_driver(other);
        FAIL() << "that is no CUDA";
    } catch (const driver_error& error) {
        EXPECT_EQ(error.call, "cuInit");
        EXPECT_NE(std::string(error.what()).find("libm.so.6"), std::string::npos) << error.what();
    }
}

// ── digests ─────────────────────────────────────────────────────────────────────────────────────────────

class CudaDriverDigest : public CudaDriver {
   protected:
    void SetUp() override {
        CudaDriver::SetUp();
        seed = std::random_device{}();
        std::printf("seed %u\n", seed);
        std::mt19937_64 random(seed);
        address = make(chunk);
        stream = driver->create_stream(Priority::normal);
        host = static_cast<std::uint64_t*>(driver->host_alloc(chunk));
        for (std::size_t i = 0; i < chunk / 8; ++i) host[i] = random();
        driver->copy_to_device(address, host, chunk, stream);
        driver->synchronize(stream);
    }
    void TearDown() override {
        driver->synchronize_device();
        driver->host_free(host);
        driver->destroy_stream(stream);
        drop(address, chunk);
        CudaDriver::TearDown();
    }

    void expect_right(const std::vector<Range>& ranges) {
        std::vector<std::uint64_t> out(ranges.size(), 1);
        driver->digest(ranges, out, stream);
        for (std::size_t i = 0; i < ranges.size(); ++i)
            ASSERT_EQ(out[i], digest_of(host + (ranges[i].address - address) / 8, ranges[i].bytes)) << "range " << i;
    }
    std::uint64_t once() {
        std::uint64_t out = 0;
        const Range range{address, chunk};
        driver->digest({&range, 1}, {&out, 1}, stream);
        return out;
    }

    unsigned seed = 0;
    Address address = 0;
    Stream stream = nullptr;
    std::uint64_t* host = nullptr;
};

TEST_F(CudaDriverDigest, IsThatOfTheHostForRangesOfAnySize) {
    ASSERT_TRUE(driver->can_digest());
    expect_right({});
    expect_right({{address, chunk}});
    expect_right({{address, 16}, {address + 16, 0}, {address + 32, 4096 - 16}, {address + mib + 48, 65536 + 16}});
    expect_right({{address, chunk}});
}

TEST_F(CudaDriverDigest, WaitsOnceForAllItsRangesAndMakesThemByThousands) {
    ASSERT_TRUE(driver->can_digest());
    std::vector<Range> ranges;
    for (std::size_t i = 0; i < 300; ++i) ranges.push_back({address + 16 * i, 16 * (i % 5)});
    unsigned long before = CONTROL(fake_calls)("cuStreamSynchronize");
    expect_right(ranges);
    EXPECT_EQ(CONTROL(fake_calls)("cuStreamSynchronize") - before, 1U);
    ranges.assign(9000, {address + 64, 32});
    ranges[4095].bytes = 48;
    ranges[4096].bytes = 64;
    ranges[8999].bytes = 80;
    expect_right(ranges);
}

TEST_F(CudaDriverDigest, IsMadeByManyThreadsAtOnce) {
    constexpr std::size_t part = 4096;
    CONTROL(fake_copy_rate)(8e3);  // a sum takes a millisecond to fetch: time for others to spoil it
    std::vector<std::thread> threads;
    for (std::size_t i = 0; i < 4; ++i) {
        threads.emplace_back([this, i] {
            const Stream own = driver->create_stream(Priority::low);
            for (std::size_t round = 0; round < 10; ++round) {
                const Range range{address + (4 * round + i) * part, part};  // another's sum would be a wrong one
                std::uint64_t out = 0;
                driver->digest({&range, 1}, {&out, 1}, own);
                EXPECT_EQ(out, digest_of(host + (range.address - address) / 8, part));
            }
            driver->destroy_stream(own);
        });
    }
    for (std::thread& thread : threads) thread.join();
    CONTROL(fake_copy_rate)(0);
    EXPECT_EQ(CONTROL(fake_calls)("cuModuleLoadData"), 1U) << "loaded once";
    EXPECT_EQ(CONTROL(fake_calls)("cuMemAlloc_v2"), 1U) << "and nothing allocated again";
}

TEST_F(CudaDriverDigest, RefusesRangesThatTheKernelCannotRead) {
    std::uint64_t out[2] = {};
    const Range odd[] = {{address, 24}};
    EXPECT_THROW(driver->digest(odd, out, stream), invalid_argument);
    const Range askew[] = {{address + 8, 16}};
    EXPECT_THROW(driver->digest(askew, out, stream), invalid_argument);
    const Range three[] = {{address, 16}, {address, 16}, {address, 16}};
    EXPECT_THROW(driver->digest(three, out, stream), invalid_argument);
}

TEST_F(CudaDriverDigest, AFailureHalfwayDoesNotSpoilTheNext) {
    const std::uint64_t right = digest_of(host, chunk);
    EXPECT_EQ(once(), right);
    for (const char* call : {"cuMemsetD8Async", "cuLaunchKernel", "cuMemcpyDtoHAsync_v2", "cuStreamSynchronize"}) {
        CONTROL(fake_fail)(call, 1, illegal_address, 1);
        try {
            once();
            ADD_FAILURE() << call << ": the failure was lost";
        } catch (const driver_error& error) {
            EXPECT_EQ(error.call, call);
        }
        EXPECT_EQ(once(), right) << call;
    }
}

TEST_F(CudaDriverDigest, AFailureHalfwayLeavesNoWorkBehindThatUsesItsMemory) {
    for (const char* call : {"cuLaunchKernel", "cuMemcpyDtoHAsync_v2"}) {
        auto other = make_cuda_driver(options());
        ASSERT_TRUE(other->can_digest());
        CONTROL(fake_fail)(call, 1, illegal_address, 1);
        const Range range{address, chunk};
        std::uint64_t out = 0;
        EXPECT_THROW(other->digest({&range, 1}, {&out, 1}, stream), driver_error);
        other.reset();  // frees what queued work would use: the fake calls that a broken rule
        EXPECT_EQ(CONTROL(fake_violations)(), 0U) << call << ": " << CONTROL(fake_last_violation)();
    }
}

TEST_F(CudaDriverDigest, ThatTheDeviceCannotMakeIsSaidWithItsReasonAndNotTriedAgain) {
    for (const char* call : {"cuDeviceGetAttribute", "cuModuleLoadData", "cuMemHostAlloc", "cuModuleGetFunction"}) {
        auto other = make_cuda_driver(options());
        CONTROL(fake_fail)(call, 1, illegal_address, 1);
        EXPECT_FALSE(other->can_digest()) << call;
        EXPECT_FALSE(other->can_digest()) << call;
        EXPECT_NE(other->version().find(std::string("12.8 (no digests: ") + call), std::string::npos)
            << other->version();
        const Range range{address, 16};
        std::uint64_t out = 0;
        EXPECT_THROW(other->digest({&range, 1}, {&out, 1}, stream), illegal_state);
        EXPECT_EQ(CONTROL(fake_live)("modules"), 0U) << call;
        EXPECT_EQ(CONTROL(fake_live)("allocations"), 0U) << call;
        EXPECT_EQ(CONTROL(fake_live)("host"), 1U) << "only this test's own";
    }
}

TEST_F(CudaDriverDigest, ThatFoundNoMemoryIsTriedAgainLater) {
    for (const char* call : {"cuModuleLoadData", "cuMemAlloc_v2"}) {
        auto other = make_cuda_driver(options());
        CONTROL(fake_fail)(call, 1, out_of_memory_code, 1);
        EXPECT_FALSE(other->can_digest()) << call;
        EXPECT_NE(other->version().find("no digests"), std::string::npos);
        EXPECT_TRUE(other->can_digest()) << call;
        EXPECT_EQ(other->version(), "12.8");
    }
}

// ── pulls ───────────────────────────────────────────────────────────────────────────────────────────────

class CudaDriverPull : public CudaDriver {
   protected:
    void SetUp() override {
        CudaDriver::SetUp();
        address = make(chunk);
        stream = driver->create_stream(Priority::normal);
        host = static_cast<unsigned char*>(driver->host_alloc(chunk));
        std::iota(host, host + chunk, static_cast<unsigned char>(1));
    }
    void TearDown() override {
        driver->synchronize_device();
        driver->host_free(host);
        driver->destroy_stream(stream);
        drop(address, chunk);
        CudaDriver::TearDown();
    }
    const unsigned char* device() const { return reinterpret_cast<const unsigned char*>(address); }

    Address address = 0;
    Stream stream = nullptr;
    unsigned char* host = nullptr;
};

TEST_F(CudaDriverPull, BringsTheBytesWithoutTheCopyEngine) {
    ASSERT_TRUE(driver->can_pull());
    driver->pull(address + 32, host + 48, mib, stream);
    driver->pull(address, host, 0, stream);
    EXPECT_EQ(device()[32], FAKE_POISON) << "queued, not done";
    driver->synchronize(stream);
    EXPECT_TRUE(std::equal(host + 48, host + 48 + mib, device() + 32));
    EXPECT_EQ(device()[31], FAKE_POISON);
    EXPECT_EQ(device()[32 + mib], FAKE_POISON);
    EXPECT_EQ(CONTROL(fake_calls)("cuMemcpyHtoDAsync_v2"), 0U);
    EXPECT_EQ(CONTROL(fake_calls)("cuLaunchKernel"), 1U) << "none for no bytes";
}

TEST_F(CudaDriverPull, AStreamIsIdleWhenAllThatWasQueuedIsDone) {
    ASSERT_TRUE(driver->can_pull());
    EXPECT_TRUE(driver->idle(stream));
    CONTROL(fake_stall)(1);
    driver->copy_to_device(address, host, chunk, stream);
    EXPECT_FALSE(driver->idle(stream));
    EXPECT_TRUE(driver->idle(stream));
    EXPECT_EQ(device()[0], host[0]);
}

TEST_F(CudaDriverPull, RefusesWhatIsNotMadeOfSixteenBytes) {
    EXPECT_THROW(driver->pull(address + 8, host, 16, stream), invalid_argument);
    EXPECT_THROW(driver->pull(address, host + 8, 16, stream), invalid_argument);
    EXPECT_THROW(driver->pull(address, host, 24, stream), invalid_argument);
}

TEST_F(CudaDriverPull, AFailureIsADriverErrorAndALackOfMemoryTheDevices) {
    ASSERT_TRUE(driver->can_pull());
    CONTROL(fake_fail)("cuLaunchKernel", 1, illegal_address, 1);
    EXPECT_THROW(driver->pull(address, host, chunk, stream), driver_error);
    CONTROL(fake_fail)("cuLaunchKernel", 1, out_of_memory_code, 1);
    EXPECT_THROW(driver->pull(address, host, chunk, stream), out_of_memory);
    driver->pull(address, host, chunk, stream);
    driver->synchronize(stream);
    EXPECT_TRUE(std::equal(host, host + chunk, device()));
}

TEST_F(CudaDriverPull, ThatTheDeviceCannotDoIsSaidWithItsReasonAndNotTriedAgain) {
    for (const char* call : {"cuModuleLoadData", "cuModuleGetFunction", "cuDeviceGetAttribute"}) {
        auto other = make_cuda_driver(options());
        CONTROL(fake_fail)(call, 1, illegal_address, 1);
        EXPECT_FALSE(other->can_pull()) << call;
        EXPECT_FALSE(other->can_pull()) << call;
        EXPECT_NE(other->version().find(std::string("12.8 (no pulls: ") + call), std::string::npos) << other->version();
        EXPECT_THROW(other->pull(address, host, 16, stream), illegal_state);
        EXPECT_EQ(CONTROL(fake_live)("modules"), 0U) << call;
        EXPECT_TRUE(other->can_digest()) << "the other kernel is there all the same";
    }
}

TEST_F(CudaDriverPull, WantsADeviceThatKnowsRegisteredMemoryByTheHostsAddresses) {
    auto other = make_cuda_driver(options());
    CONTROL(fake_attribute)(91, 0);
    EXPECT_FALSE(other->can_pull());
    EXPECT_NE(other->version().find("addresses of registered memory"), std::string::npos) << other->version();
    EXPECT_EQ(CONTROL(fake_live)("modules"), 0U);
}

TEST_F(CudaDriverPull, ThatFoundNoMemoryIsTriedAgainLater) {
    auto other = make_cuda_driver(options());
    CONTROL(fake_fail)("cuModuleLoadData", 1, out_of_memory_code, 1);
    EXPECT_FALSE(other->can_pull());
    EXPECT_TRUE(other->can_pull());
    EXPECT_EQ(other->version(), "12.8");
}

}  // namespace
}  // namespace dormouse
