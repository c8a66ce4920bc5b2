// What staging promises: it makes the first sleep quick, it is stopped at once, and nobody has to trust it.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <future>
#include <thread>

#include "dormouse/error.hpp"
#include "support/rig.hpp"

namespace dormouse {
namespace {

using namespace dormouse::testing;
using namespace std::chrono_literals;

// Where the device makes digests; elsewhere there is no staging.
class StagingTest : public ::testing::TestWithParam<Kind> {};
INSTANTIATE_TEST_SUITE_P(On, StagingTest, ::testing::Values(on_host, on_cuda, on_cuda_ring),
                         ::testing::PrintToStringParamName());

TEST(StagingWithoutDigests, IsRefusedForItsCopiesCouldNeverBeTrusted) {
    Rig rig(on_acl);
    rig.write(2 * MiB, "weights");
    EXPECT_THROW(rig->stage({}), illegal_state);
}

TEST_P(StagingTest, AfterStagingEvenTheFirstSleepCopiesNothing) {
    Rig rig(GetParam());
    Written segment = rig.write(10 * MiB, "weights");
    rig.write(6 * MiB, "kv_cache");
    rig->stage({.bytes_per_second = 0, .piece_bytes = MiB});
    rig->wait_staged();
    const PoolStats staged = rig->stats();
    EXPECT_FALSE(staged.staging.active);
    EXPECT_EQ(staged.staging.error, "");
    EXPECT_EQ(staged.staging.total_bytes, segment.bytes);
    EXPECT_EQ(staged.staging.done_bytes, segment.bytes);
    EXPECT_EQ(staged.tags.at("weights").backup_bytes, segment.bytes);
    const Transition sleep = rig->sleep(1);
    EXPECT_EQ(sleep.clean_bytes, segment.bytes);
    EXPECT_EQ(sleep.copied_bytes, 0U);
    rig->wake({});
    EXPECT_TRUE(segment.intact());
    rig->stage({.bytes_per_second = 0, .piece_bytes = MiB});  // again: everything is there already
    rig->wait_staged();
    flip(segment.address + segment.bytes - 1);
    segment.digest = digest_at(segment.address, segment.bytes);
    EXPECT_EQ(rig->sleep(1).mismatched_bytes, 2 * MiB) << "written after it was staged";
    rig->wake({});
    EXPECT_TRUE(segment.intact());
}

TEST_P(StagingTest, ATransitionStopsAStagingAtOnceAndKeepsWhatItFinished) {
    Rig rig(GetParam());
    const Written segment = rig.write(10 * MiB, "weights");
    rig->stage({.bytes_per_second = 0.001, .piece_bytes = MiB});  // hours
    const Transition sleep = rig->sleep(1);
    EXPECT_LT(sleep.seconds, 5.0);
    EXPECT_EQ(rig->stats().staging.error, "stopped");
    EXPECT_EQ(sleep.copied_bytes, segment.bytes) << "half a chunk is not trusted";
    rig->wait_staged();
    rig->wake({});
    EXPECT_TRUE(segment.intact());
}

TEST_P(StagingTest, AFreeDuringStagingWaitsForAPieceAtMostAndLeavesNoBackup) {
    Rig rig(GetParam());
    const Written segment = rig.write(10 * MiB, "weights");
    rig->stage({.bytes_per_second = 0.001, .piece_bytes = MiB});
    rig->free(segment.address);
    rig->stop_staging();
    EXPECT_EQ(rig->stats().store.reserved, 0U);
    EXPECT_EQ(rig.mapped(), 0U);
}

TEST_P(StagingTest, AfterAFreeItGoesOnWithTheNextSegment) {
    Rig rig(GetParam());
    const Written gone = rig.write(10 * MiB, "weights");
    const Written stays = rig.write(2 * MiB, "weights");
    rig->stage({.bytes_per_second = 50.0 * MiB, .piece_bytes = MiB});
    while (rig->stats().staging.done_bytes == 0) {
        std::this_thread::yield();
    }
    rig->free(gone.address);
    rig->wait_staged();
    EXPECT_EQ(rig->stats().staging.error, "");
    EXPECT_EQ(rig.tag("weights").backup_bytes, stays.bytes);
    EXPECT_EQ(rig->stats().store.reserved, stays.bytes);
}

TEST_P(StagingTest, AWriteThatWasThereWhileItCopiedAndIsUndoneIsNotTrusted) {
    Rig rig(GetParam());
    const Written segment = rig.write(10 * MiB, "weights");
    std::atomic<bool> written{false};
    rig.steering->before([&](std::string_view call) {
        if (call == "copy_to_host" && !written.exchange(true)) {
            flip(segment.address);  // a kernel takes a lock in device memory
        }
    });
    rig->stage({.bytes_per_second = 0, .piece_bytes = MiB});
    rig->wait_staged();
    rig.steering->before({});
    ASSERT_TRUE(written);
    flip(segment.address);  // and lets go of it
    ASSERT_TRUE(segment.intact());
    EXPECT_GT(rig->sleep(1).mismatched_bytes, 0U) << "the backup holds what was there for a moment";
    rig->wake({});
    EXPECT_TRUE(segment.intact());
}

TEST_P(StagingTest, AStopDoesNotWaitForAllOfAChunksHostMemory) {
    PoolOptions options = small_pool();
    options.chunk_bytes = 256 * MiB;  // four parts
    Rig rig(GetParam(), options, 320 * MiB);
    rig->malloc(256 * MiB, "weights");
    std::atomic<int> commits{0};
    std::promise<void> begun;
    std::promise<void> go_on;
    rig.steering->before([&](std::string_view call) {
        if (call == "host.commit" && ++commits == 1) {
            begun.set_value();
            go_on.get_future().wait();
        }
    });
    rig->stage({.bytes_per_second = 0, .piece_bytes = MiB});
    begun.get_future().wait();
    auto stopped = std::async(std::launch::async, [&] { rig->stop_staging(); });
    EXPECT_EQ(stopped.wait_for(100ms), std::future_status::timeout) << "a part is under way";
    go_on.set_value();
    stopped.get();
    EXPECT_LT(commits, 4);
    EXPECT_EQ(rig->stats().staging.error, "stopped");
    EXPECT_EQ(rig.tag("weights").backup_bytes, 0U);
    rig->stage({.bytes_per_second = 0, .piece_bytes = 8 * MiB});  // goes on from there
    rig->wait_staged();
    EXPECT_EQ(rig->stats().store.committed, 256 * MiB);
    EXPECT_EQ(rig->sleep(1).copied_bytes, 0U);
    rig.steering->before({});
}

}  // namespace
}  // namespace dormouse
