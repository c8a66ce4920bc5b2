// A restore whose copies the copy engine and the device's processors may share, on a device that moves 1 MB in a
// millisecond of virtual time: the sizes of a real wake divided by 64, its times as they are.
#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <vector>

#include "support/store_bench.hpp"

namespace dormouse {
namespace {

constexpr std::size_t mib = StoreBench::mib;
constexpr std::size_t chunk = 2 * mib;
constexpr double ms = 1e-3;

class SharedCopyTest : public ::testing::Test {
   protected:
    explicit SharedCopyTest(const char* kind = "registered") : bench(kind) {
        bench.driver.timed = true;
        bench.driver.pulls = true;
        bench.options.pull_pace = {
            .probe_bytes = mib / 4, .batch_bytes = mib, .pull_bytes = 2 * mib, .round_seconds = 10 * ms};
    }

    // Books, fills and offloads as many chunks.
    void keep(std::size_t chunks) {
        device.emplace(bench.driver, chunks * chunk);
        slots = bench.store().reserve(std::vector<std::size_t>(chunks, chunk));
        device->fill(1);
        bench.offload(*device, slots);
        device->fill(2);
    }

    struct Outcome {
        double seconds = 0;
        std::size_t pulled = 0;
    };
    // The restore of a wake that maps a chunk in so many seconds, then as many chunks without content.
    Outcome restore(double mapping = 0.5 * ms, std::size_t behind = 0) {
        const double begin = now();
        const auto transfer = bench.store().restore();
        for (std::size_t i = 0; i < slots.size(); ++i) {
            pass(mapping);
            transfer->add({device->address() + i * chunk, chunk, slots[i], 0});
        }
        transfer->hand_over();
        pass(static_cast<double>(behind) * mapping);
        transfer->finish();
        transfer->hand_over();
        EXPECT_TRUE(device->holds(1));
        return {now() - begin, transfer->pulled_bytes()};
    }

    void clear_for(double seconds) { bench.driver.clears_until = now() + seconds; }
    static double now() { return VirtualClock::time(); }
    static void pass(double seconds) { VirtualClock::time() += seconds; }
    double engine_seconds(std::size_t bytes) const { return static_cast<double>(bytes) / bench.driver.engine_rate; }

    void TearDown() override {
        device.reset();
        bench.expect_nothing_left();
    }

    StoreBench bench;
    std::optional<DeviceBytes> device;
    std::vector<Slot> slots;
};

TEST_F(SharedCopyTest, AtRestNothingIsPulledAndNothingIsSlower) {
    keep(32);
    const Outcome with = restore();
    EXPECT_EQ(with.pulled, 0U);
    EXPECT_NEAR(with.seconds, engine_seconds(32 * chunk) + 0.5 * ms, 0.05 * ms) << "the first chunk, then the link";
}

TEST_F(SharedCopyTest, WhileTheDeviceClearsItsProcessorsPullAndThenTheyFallSilent) {
    keep(64);
    constexpr double clearing = 40 * ms;
    clear_for(clearing);
    const Outcome with = restore();
    const double pulled_at_most = (clearing + bench.options.pull_pace.round_seconds) * bench.driver.pull_rate;
    EXPECT_GT(static_cast<double>(with.pulled), 0.8 * clearing * bench.driver.pull_rate);
    EXPECT_LT(static_cast<double>(with.pulled), pulled_at_most + 4 * 2 * double{mib});
    EXPECT_LT(with.seconds, engine_seconds(64 * chunk) + 0.25 * clearing);
}

TEST_F(SharedCopyTest, WhatIsHandedOverNeedsNobodyWhoLooksAfterIt) {
    keep(64);
    clear_for(30 * ms);
    const double begin = now();
    const auto transfer = bench.store().restore();
    for (std::size_t i = 0; i < slots.size(); ++i) {
        transfer->add({device->address() + i * chunk, chunk, slots[i], 0});
    }
    transfer->hand_over();
    const double handed_over = now() - begin;
    EXPECT_GT(handed_over, 30 * ms) << "the processors could not have done all of it sooner";
    pass(100 * ms);  // memory that takes its time to come
    transfer->finish();
    EXPECT_NEAR(now() - begin, handed_over + 100 * ms, ms);
    EXPECT_TRUE(device->holds(1));
}

TEST_F(SharedCopyTest, AnEngineThatOnlyCrawlsIsHelpedAllTheTime) {
    keep(64);
    bench.driver.engine_rate = 0.1e9;
    const Outcome with = restore();
    EXPECT_GT(with.pulled, 64 * chunk * 3 / 4);
}

TEST_F(SharedCopyTest, OneProbeThatComesInItsTurnHidesNothing) {
    keep(64);
    clear_for(40 * ms);
    bench.driver.turn_seconds = 1 * ms;
    const Outcome with = restore();
    EXPECT_FALSE(bench.driver.lucky);
    EXPECT_GT(static_cast<double>(with.pulled), 0.8 * bench.options.pull_pace.round_seconds * bench.driver.pull_rate);
}

TEST_F(SharedCopyTest, AHostThatIsSlowerThanTheEngineLeavesNothingToPull) {
    keep(32);
    const double begin = now();
    const Outcome with = restore(5 * ms, 4);  // no probe is looked at in time, and the link waits for the host
    EXPECT_EQ(with.pulled, 0U);
    EXPECT_LT(now() - begin, 36 * 5 * ms + 3 * ms);
}

TEST_F(SharedCopyTest, AfterARoundTheDeviceIsAskedAgain) {
    keep(64);
    clear_for(2 * ms);
    const double round = bench.options.pull_pace.round_seconds;
    const Outcome with = restore();
    EXPECT_GT(static_cast<double>(with.pulled), 0.8 * round * bench.driver.pull_rate);
    EXPECT_LT(static_cast<double>(with.pulled), round * bench.driver.pull_rate + 4 * 2 * double{mib});
}

TEST_F(SharedCopyTest, WhatIsSmallerThanTheProbeGoesToTheEngineWhenNothingMoreComes) {
    constexpr std::size_t little = mib / 8;
    DeviceBytes small(bench.driver, chunk);
    const Slot slot = bench.book(chunk);
    small.fill(1);
    bench.offload(small, {&slot, 1});
    small.fill(2);
    const auto transfer = bench.store().restore();
    transfer->add({small.address(), little, slot, 0});
    EXPECT_EQ(bench.driver.queued(), 0U) << "a smaller probe says less";
    transfer->finish();
    EXPECT_TRUE(small.holds(1, 0, little));
    EXPECT_TRUE(small.holds(2, little));
    EXPECT_EQ(transfer->pulled_bytes(), 0U);
}

TEST_F(SharedCopyTest, WhoWantsNoPullsGetsOneStreamAndNoQuestions) {
    bench.options.pull = false;
    keep(8);
    clear_for(20 * ms);
    EXPECT_EQ(restore().pulled, 0U);
    EXPECT_EQ(bench.driver.faults.calls("idle"), 0U);
    EXPECT_EQ(bench.driver.faults.calls("create_stream"), 1U);
    EXPECT_FALSE(bench.store().stats().pulls);
}

TEST_F(SharedCopyTest, StatsSayWhetherAWakeMayBePulled) {
    EXPECT_TRUE(bench.store().stats().pulls);
    bench.driver.pulls = false;
    EXPECT_FALSE(bench.store().stats().pulls);
    bench.driver.pulls = true;
}

class SharedCopyOfARing : public SharedCopyTest {
   protected:
    SharedCopyOfARing() : SharedCopyTest("ring") {}
};

TEST_F(SharedCopyOfARing, IsNone) {
    bench.options.ring_buffer = mib;
    keep(4);
    EXPECT_FALSE(bench.store().stats().pulls);
    EXPECT_EQ(restore().pulled, 0U);
    EXPECT_EQ(bench.driver.faults.calls("idle"), 0U);
}

TEST_F(SharedCopyTest, WhoGivesUpHalfwayWaitsForWhatIsUnderWay) {
    keep(16);
    clear_for(20 * ms);
    {
        const auto transfer = bench.store().restore();
        for (std::size_t i = 0; i < slots.size(); ++i) {
            pass(ms);
            transfer->add({device->address() + i * chunk, chunk, slots[i], 0});
        }
        EXPECT_GT(transfer->pulled_bytes(), 0U);
        EXPECT_GT(bench.driver.queued(), 0U);
    }
    EXPECT_EQ(bench.driver.queued(), 0U);
    EXPECT_GE(now(), bench.driver.clears_until);
}

class SharedCopyCall : public SharedCopyTest, public ::testing::WithParamInterface<const char*> {};
INSTANTIATE_TEST_SUITE_P(Calls, SharedCopyCall,
                         ::testing::Values("pull", "idle", "copy_to_device", "synchronize", "create_stream"),
                         [](const auto& call) { return std::string(call.param); });

TEST_P(SharedCopyCall, ThatFailsLosesNothing) {
    keep(8);
    const std::string call = GetParam();
    unsigned failed = 0;
    for (unsigned n = 1; n < 2000; ++n) {
        clear_for(10 * ms);
        device->fill(n + 1);
        bench.driver.faults.fail(call, n);
        try {
            restore();
            bench.driver.faults.forgive();
            break;
        } catch (const driver_error& failure) {
            ++failed;
            EXPECT_EQ(failure.call, call);
        }
        bench.driver.faults.forgive();
        ASSERT_EQ(bench.driver.queued(), 0U) << "call " << n;
        ASSERT_EQ(bench.driver.violations, 0U) << "call " << n;
    }
    EXPECT_GT(failed, call == "create_stream" ? 2U : 3U);
    device->fill(1);
    restore();
}

TEST_F(SharedCopyTest, AfterAFailureEveryCallSaysTheSame) {
    keep(8);
    clear_for(20 * ms);
    const auto transfer = bench.store().restore();
    bench.driver.faults.fail("pull", 1);
    const auto play = [&] {
        for (std::size_t i = 0; i < slots.size(); ++i) {
            pass(ms);
            transfer->add({device->address() + i * chunk, chunk, slots[i], 0});
        }
    };
    EXPECT_THROW(play(), driver_error);
    EXPECT_THROW(transfer->hand_over(), driver_error);
    EXPECT_THROW(transfer->finish(), driver_error);
}

}  // namespace
}  // namespace dormouse
