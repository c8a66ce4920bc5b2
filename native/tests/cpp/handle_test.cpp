// Handles of physical memory in a pool's life: where a mapping keeps its memory they are gone while it is in use, so
// that a sleep is unmaps alone; and one that the device does not release then costs nobody anything but a later try.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "dormouse/error.hpp"
#include "support/rig.hpp"

namespace dormouse {
namespace {

using namespace dormouse::testing;

constexpr std::size_t capacity = 64 * MiB;
constexpr unsigned chunks = 3;
constexpr std::size_t bytes = chunks * 4 * MiB;

class HandleTest : public ::testing::TestWithParam<Kind> {
   protected:
    const bool cuda = std::string(GetParam().driver) == "cuda";
    const char* const create = cuda ? "cuMemCreate" : "aclrtMallocPhysical";
    const char* const release = cuda ? "cuMemRelease" : "aclrtFreePhysical";
    const char* const unmap = cuda ? "cuMemUnmap" : "aclrtUnmapMem";
    const int code = cuda ? 999 : 507899;
    // Handles of mapped memory.
    const unsigned kept = cuda ? 0 : chunks;
    Rig rig{GetParam(), small_pool(), capacity};
    const std::size_t own = rig.fake->live("bytes");  // what the driver's digests work with

    void break_down(const char* symbol) { rig.fake->fail(symbol, 1, code, FakeLibrary::for_ever); }

    void expect_held(unsigned handles, unsigned mappings) const {
        EXPECT_EQ(rig.fake->live("handles"), handles);
        EXPECT_EQ(rig.fake->live("mappings"), mappings);
        const std::size_t held = std::max(handles, mappings) * (4 * MiB);
        EXPECT_EQ(rig.fake->live("bytes"), own + held);
        EXPECT_EQ(rig.mapped(), held);
        EXPECT_EQ(rig->stats().memory.free, capacity - own - held) << "what a wake asks for room";
    }
};
INSTANTIATE_TEST_SUITE_P(On, HandleTest, ::testing::Values(on_cuda, on_acl), ::testing::PrintToStringParamName());

TEST_P(HandleTest, TheDevicesMemoryIsTakenWhileItIsMappedAndFreeAfterASleepHandleOrNot) {
    expect_held(0, 0);
    const Written weights = rig.write(bytes, "weights");
    for (int level : {1, 1, 2}) {
        expect_held(kept, chunks);
        EXPECT_TRUE(weights.intact());
        const unsigned long released = rig.fake->calls(release);
        rig->sleep(level);
        EXPECT_EQ(rig.fake->calls(release), released + kept);
        expect_held(0, 0);
        rig->wake({});
    }
    rig->free(weights.address);
    expect_held(0, 0);
}

TEST_P(HandleTest, AReleaseThatFailsAfterTheMapIsNoFailureOfTheWakeAndTheHandleGoesWithTheSleep) {
    if (!cuda) {
        GTEST_SKIP() << "nothing is released after a map";
    }
    break_down(release);
    const Written weights = rig.write(bytes, "weights");  // nor of an allocation
    expect_held(chunks, chunks);
    rig.fake->heal();
    for (int round = 0; round < 2; ++round) {
        rig->sleep(1);
        expect_held(0, 0);
        break_down(release);
        const Transition woke = rig->wake({});
        EXPECT_EQ(woke.error, "");
        expect_held(chunks, chunks);
        EXPECT_TRUE(weights.intact());
        rig.fake->heal();
    }
    EXPECT_EQ(rig->stats().counters.failed_releases, 0U);
    EXPECT_EQ(rig->stats().counters.rollbacks, 0U);
    rig->free(weights.address);
    expect_held(0, 0);
}

TEST_P(HandleTest, AHandleThatFailsToGoWithTheSleepTooIsUsedByTheNextWake) {
    break_down(release);
    const Written weights = rig.write(bytes, "weights");
    EXPECT_THROW(rig->sleep(1), driver_error);
    expect_held(chunks, 0);
    rig.fake->heal();
    const unsigned long created = rig.fake->calls(create);
    rig->wake({});
    EXPECT_EQ(rig.fake->calls(create), created);
    expect_held(kept, chunks);
    EXPECT_TRUE(weights.intact());
}

TEST_P(HandleTest, MemoryWhoseUnmapFailsStaysHeldWithoutAHandleUntilALaterSleep) {
    const Written weights = rig.write(bytes, "weights");
    const Written cache = rig.write(4 * MiB, "default");
    rig.fake->fail(unmap, 2, code, FakeLibrary::for_ever);
    EXPECT_THROW(rig->sleep(1), driver_error);
    expect_held(cuda ? 0 : chunks, chunks);  // all but the first
    EXPECT_EQ(rig.state("weights"), TagState::offloaded);
    rig.fake->heal();
    rig->sleep(1);
    expect_held(0, 0);
    rig->wake({});
    EXPECT_TRUE(weights.intact());
    EXPECT_TRUE(cache.intact());
}

TEST_P(HandleTest, AWakeThatRollsBackGivesBackMemoryWithAndWithoutHandles) {
    const Written weights = rig.write(bytes, "weights");
    rig->sleep(1);
    rig.fake->fail(cuda ? "cuMemMap" : "aclrtMapMem", chunks, code, 1);
    EXPECT_THROW(rig->wake({}), driver_error);
    expect_held(0, 0);
    EXPECT_EQ(rig->stats().counters.failed_releases, 0U);
    rig->wake({});
    EXPECT_TRUE(weights.intact());
}

}  // namespace
}  // namespace dormouse
