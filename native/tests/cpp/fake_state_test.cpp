// What both fakes share (fake_state.cpp), seen through the fake libcuda.so.1: faults, the log of calls, counts, leaks.
#include <string_view>

#include "fake_cuda.hpp"

namespace fake_cuda {
namespace {

using FakeState = FakeCuda;

// A call that always works, of either symbol.
int version(const Cuda& cu) {
    int number = 0;
    return cu.cuDriverGetVersion(&number);
}
int count(const Cuda& cu) {
    int number = 0;
    return cu.cuDeviceGetCount(&number);
}

TEST_F(FakeState, AFaultStrikesTheNthCallOfItsSymbolAndAsManyAfterItAsAsked) {
    cu.fake_fail("cuDriverGetVersion", 3, 77, 2);
    for (int expected : {0, 0, 77, 77, 0, 0}) {
        EXPECT_EQ(version(cu), expected);
        EXPECT_EQ(count(cu), 0);
    }
}

TEST_F(FakeState, AFaultWithoutASymbolCountsCallsOfAll) {
    cu.fake_fail(nullptr, 2, 78, 2);
    EXPECT_EQ(version(cu), 0);
    EXPECT_EQ(count(cu), 78);
    EXPECT_EQ(version(cu), 78);
    EXPECT_EQ(count(cu), 0);
}

TEST_F(FakeState, FaultsAreCountedEachForItself) {
    cu.fake_fail("cuDriverGetVersion", 1, 1, 1);
    cu.fake_fail("cuDriverGetVersion", 3, 3, 1);
    cu.fake_fail("cuDeviceGetCount", 2, 2, 1);
    for (int expected : {1, 0, 3, 0}) EXPECT_EQ(version(cu), expected);
    for (int expected : {0, 2, 0}) EXPECT_EQ(count(cu), expected);
}

TEST_F(FakeState, AFaultOfNoCallsDoesNothing) {
    cu.fake_fail("cuDriverGetVersion", 1, 77, 0);
    cu.fake_fail("cuDriverGetVersion", 0, 77, 1);
    EXPECT_EQ(version(cu), 0);
}

TEST_F(FakeState, HealingTakesEveryFaultBack) {
    cu.fake_fail("cuDriverGetVersion", 1, 77, 1000);
    cu.fake_fail(nullptr, 3, 78, 1);
    EXPECT_EQ(version(cu), 77);
    cu.fake_heal();
    for (int i = 0; i < 4; ++i) EXPECT_EQ(version(cu), 0);
}

TEST_F(FakeState, CallsAreLoggedInOrderFailedOnesToo) {
    const unsigned long start = cu.fake_calls(nullptr);
    cu.fake_fail("cuDeviceGetCount", 1, 77, 1);
    version(cu);
    count(cu);
    version(cu);
    EXPECT_EQ(cu.fake_calls(nullptr), start + 3);
    EXPECT_EQ(cu.fake_calls("cuDriverGetVersion"), 2U);
    EXPECT_EQ(cu.fake_calls("cuDeviceGetCount"), 1U);
    EXPECT_EQ(cu.fake_calls("cuMemMap"), 0U);
    EXPECT_STREQ(cu.fake_call_name(start), "cuDriverGetVersion");
    EXPECT_STREQ(cu.fake_call_name(start + 1), "cuDeviceGetCount");
    EXPECT_EQ(cu.fake_call_name(start + 3), nullptr);
}

TEST_F(FakeState, AViolationIsCountedAndSaidInWords) {
    EXPECT_EQ(cu.fake_violations(), 0U);
    EXPECT_STREQ(cu.fake_last_violation(), "");
    REFUSED(1, cu.cuMemRelease(0x1234));
    EXPECT_STREQ(cu.fake_last_violation(), "cuMemRelease: handle 0x1234 is not held");
}

TEST_F(FakeState, AResetForgetsEverything) {
    const u64 address = usable(granule);
    host(8);
    stream();
    kernel();
    REFUSED(1, cu.cuMemRelease(0));
    cu.fake_squat(granule);
    cu.fake_fail(nullptr, 1, 77, 1000);
    cu.fake_reset(2 * granule);
    EXPECT_EQ(cu.fake_calls(nullptr), 0U);
    EXPECT_EQ(cu.fake_calls("cuMemCreate"), 0U);
    EXPECT_EQ(cu.fake_violations(), 0U);
    for (const char* kind : kinds) EXPECT_EQ(cu.fake_live(kind), 0U) << kind;
    EXPECT_FALSE(readable(address));
    Opaque again = nullptr;
    FINE(cu.cuInit(0));
    FINE(cu.cuDevicePrimaryCtxRetain(&again, 0));
    FINE(cu.cuCtxSetCurrent(again));
    std::size_t free = 0, total = 0;
    FINE(cu.cuMemGetInfo_v2(&free, &total));
    EXPECT_EQ(total, 2 * granule);
    EXPECT_EQ(free, 2 * granule);
}

TEST_F(FakeState, EachKindThatIsHeldIsCounted) {
    usable(granule);
    host(8);
    stream();
    kernel();
    u64 block = 0;
    FINE(cu.cuMemAlloc_v2(&block, 1));
    static int pinned = 0;
    FINE(cu.cuMemHostRegister_v2(&pinned, sizeof pinned, 0));
    for (const char* kind : kinds)
        EXPECT_EQ(cu.fake_live(kind), std::string_view(kind) == "bytes" ? granule + 512 : 1U) << kind;
    EXPECT_EQ(cu.fake_live("nothing"), 0U);
}

// What a process says when it ends with one stream alive.
[[noreturn]] void end_with_a_stream(const char* wanted) {
    setenv("FAKE_REPORT_LEAKS", wanted, 1);
    std::exit(0);
}

TEST_F(FakeState, LeaksAreReportedWhenTheProcessEndsIfAskedFor) {
    stream();
    EXPECT_EXIT(end_with_a_stream("1"), testing::ExitedWithCode(0), "fake driver: leaked 1 streams");
    EXPECT_EXIT(end_with_a_stream("0"), testing::ExitedWithCode(0), "^$");
}

}  // namespace
}  // namespace fake_cuda
