// What a pool promises when memory is short, of the device or of the host: nothing is lost, and later it works.
#include <gtest/gtest.h>

#include <atomic>

#include "dormouse/error.hpp"
#include "support/rig.hpp"

namespace dormouse {
namespace {

using namespace dormouse::testing;

class RoomTest : public ::testing::TestWithParam<Kind> {};
INSTANTIATE_TEST_SUITE_P(On, RoomTest, ::testing::Values(on_host, on_cuda, on_cuda_ring, on_acl, on_acl_ring),
                         ::testing::PrintToStringParamName());

constexpr std::size_t capacity = 64 * MiB;

TEST_P(RoomTest, AWakeWithoutRoomLeavesEverythingAsleepAndALaterOneWorks) {
    Rig rig(GetParam(), small_pool(), capacity);
    const Written segment = rig.write(10 * MiB, "weights");
    rig.write(6 * MiB, "kv_cache");
    rig->sleep(1);
    rig.squat(50 * MiB);
    try {
        rig->wake({});
        FAIL() << "there is no room";
    } catch (const out_of_memory& refused) {
        EXPECT_EQ(refused.needed, 16 * MiB);
        EXPECT_LE(refused.available, 14 * MiB);
    }
    EXPECT_EQ(rig.state("weights"), TagState::offloaded);
    EXPECT_EQ(rig.state("kv_cache"), TagState::discarded);
    EXPECT_EQ(rig.mapped(), 0U);
    EXPECT_EQ(rig->stats().counters.memory_retries, small_pool().memory_retries);
    EXPECT_EQ(rig->stats().counters.wakes, 0U);
    EXPECT_FALSE(rig->stats().last->error.empty());
    rig->wake({"weights"});  // this one fits
    EXPECT_TRUE(segment.intact());
    EXPECT_THROW(rig->wake({"kv_cache"}), out_of_memory);
    EXPECT_TRUE(segment.intact());
    rig.squat(0);
    rig->wake({});
    EXPECT_EQ(rig.mapped(), 16 * MiB);
    EXPECT_TRUE(segment.intact());
}

TEST_P(RoomTest, AWakeWaitsALittleForMemoryThatComesBack) {
    Rig rig(GetParam(), small_pool(), capacity);
    const Written segment = rig.write(10 * MiB, "weights");
    rig->sleep(1);
    rig.squat(60 * MiB);
    int looks = 0;
    rig.steering->before([&](std::string_view call) {
        if (call == "memory" && ++looks == 3) {
            rig.squat(0);
        }
    });
    rig->wake({});
    rig.steering->before({});
    EXPECT_EQ(rig->stats().counters.memory_retries, 2U);
    EXPECT_EQ(rig->stats().counters.rollbacks, 0U);
    EXPECT_TRUE(segment.intact());
}

TEST_P(RoomTest, MemoryTakenByAnotherAfterTheCheckIsTriedForAgainThenTheWakeIsUndone) {
    Rig rig(GetParam(), small_pool(), capacity);
    const Written segment = rig.write(10 * MiB, "weights");  // three chunks
    rig->sleep(1);
    int creates = 0;
    int failures = 2;
    rig.steering->before([&](std::string_view call) {
        if (call == "create" && ++creates >= 2 && failures > 0) {
            --failures;
            throw out_of_memory(4 * MiB, 0, "another was quicker");
        }
    });
    rig->wake({});
    EXPECT_EQ(rig->stats().counters.memory_retries, 2U);
    EXPECT_TRUE(segment.intact());

    rig->sleep(1);
    creates = 0;
    failures = 1000;
    EXPECT_THROW(rig->wake({}), out_of_memory);
    EXPECT_EQ(failures, 1000 - 1 - static_cast<int>(small_pool().memory_retries)) << "tries are bounded";
    EXPECT_EQ(rig->stats().counters.rollbacks, 1U);
    EXPECT_EQ(rig.mapped(), 0U);
    EXPECT_EQ(rig.state("weights"), TagState::offloaded);
    rig.steering->before({});
    rig->wake({});
    EXPECT_TRUE(segment.intact());
}

TEST_P(RoomTest, ASleepWithoutRoomForTheBackupLeavesEverythingAwake) {
    Rig rig(GetParam(), small_pool(), capacity);
    const Written segment = rig.write(10 * MiB, "weights");
    rig.steering->host_available = MiB;
    EXPECT_THROW(rig->sleep(1), host_out_of_memory);
    EXPECT_EQ(rig.state("weights"), TagState::resident);
    EXPECT_EQ(rig.mapped(), segment.bytes);
    EXPECT_TRUE(segment.intact());
    EXPECT_EQ(rig->stats().store.reserved, 0U);
    EXPECT_NE(rig->stats().last->error.find("nothing was moved"), std::string::npos) << rig->stats().last->error;
    EXPECT_EQ(rig->stats().counters.sleeps, 0U);
    rig.steering->host_available = unlimited;
    rig->sleep(1);
    rig->wake({});
    EXPECT_TRUE(segment.intact());
}

TEST_P(RoomTest, PagesThatCannotBeHadHalfWayLeaveEverythingAwake) {
    Rig rig(GetParam(), small_pool(), capacity);
    const Written first = rig.write(10 * MiB, "weights");
    const Written second = rig.write(10 * MiB, "runtime");
    std::atomic<int> commits = 0;  // counted by the threads that prepare
    rig.steering->before([&](std::string_view call) {
        if (call == "host.commit" && ++commits >= 2) {
            throw host_out_of_memory(4 * MiB, 0, "the cgroup is full");
        }
    });
    ASSERT_THROW(rig->sleep(1), host_out_of_memory);
    rig.steering->before({});
    EXPECT_EQ(rig.mapped(), first.bytes + second.bytes);
    EXPECT_TRUE(first.intact());
    EXPECT_TRUE(second.intact());
    EXPECT_EQ(rig->stats().store.reserved, 0U);
    rig->sleep(1);
    rig->wake({});
    EXPECT_TRUE(first.intact());
    EXPECT_TRUE(second.intact());
}

TEST_P(RoomTest, ALevelTwoSleepOfLargeSegmentsNeedsNoHostMemory) {
    Rig rig(GetParam(), small_pool(), capacity);
    rig.write(10 * MiB, "weights");
    rig.write(10 * MiB, "kv_cache");
    rig.steering->host_available = 0;
    rig->sleep(2);
    EXPECT_EQ(rig.mapped(), 0U);
}

}  // namespace
}  // namespace dormouse
