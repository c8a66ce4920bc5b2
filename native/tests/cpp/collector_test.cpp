// Released memory is collected while nobody waits: once, a while after the last release, unless somebody took memory
// before; and nothing that goes wrong with it is anybody's trouble.
#include "collector.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <limits>
#include <memory>
#include <string_view>
#include <thread>

#include "dormouse/error.hpp"
#include "support/rig.hpp"

namespace dormouse {
namespace {

using namespace dormouse::testing;
using namespace std::chrono_literals;

constexpr double soon = 0.01;
constexpr double never = 1000;

// Polls for up to 20 s, far more than it ever takes.
bool comes_true(const std::function<bool()>& condition) {
    for (int i = 0; i < 10'000; ++i) {
        if (condition()) {
            return true;
        }
        std::this_thread::sleep_for(2ms);
    }
    return condition();
}

// A device of 8 MiB whose creates and releases are counted, and fail while the test says so.
class CollectorTest : public ::testing::Test {
   protected:
    void SetUp() override {
        steering_->before([this](std::string_view call) {
            if (call == "create") {
                if (no_room) {
                    ++refused;
                    throw out_of_memory(1, 0, "injected");
                }
                ++created;
            } else if (call == "release") {
                if (stuck) {
                    ++refused;
                    throw driver_error("release", 999, "injected");
                }
                ++released;
            }
        });
    }
    std::size_t free() { return driver.memory().free; }

    std::atomic<bool> no_room = false;
    std::atomic<bool> stuck = false;
    std::atomic<int> created = 0;
    std::atomic<int> released = 0;
    std::atomic<int> refused = 0;

   private:
    std::shared_ptr<Steering> steering_ = std::make_shared<Steering>();

   protected:
    SteeredDriver driver{make_driver("host", {.device = 0, .library = "", .capacity = 8 * MiB}), steering_};
};

TEST_F(CollectorTest, CollectsOnceAfterAReleaseAndHoldsNothing) {
    Collector collector(driver, 0.2);
    for (int i = 0; i < 100; ++i) {
        collector.released();
    }
    EXPECT_TRUE(comes_true([this] { return released == 1; }));
    std::this_thread::sleep_for(300ms);
    EXPECT_EQ(created, 1) << "a hundred releases in a row are collected together";
    EXPECT_EQ(free(), 8 * MiB);
    collector.released();
    EXPECT_TRUE(comes_true([this] { return released == 2; })) << "the next sleep is collected, too";
}

TEST_F(CollectorTest, WaitsUntilNothingWasReleasedForAWhile) {
    Collector collector(driver, 0.5);
    std::chrono::steady_clock::time_point last;
    for (int i = 0; i < 20; ++i) {
        last = std::chrono::steady_clock::now();
        collector.released();
        std::this_thread::sleep_for(10ms);
    }
    EXPECT_TRUE(comes_true([this] { return created == 1; }));
    EXPECT_GE(std::chrono::steady_clock::now() - last, 500ms);
}

TEST_F(CollectorTest, WhoTakesMemoryFirstHasDoneTheBooks) {
    Collector collector(driver, 0.05);
    collector.released();
    collector.taken();
    std::this_thread::sleep_for(200ms);
    EXPECT_EQ(created, 0);
}

TEST_F(CollectorTest, EndsWithoutWaitingForItsTime) {
    {
        Collector collector(driver, never);
        collector.released();
    }  // which takes no quarter of an hour
    EXPECT_EQ(created, 0);
}

TEST_F(CollectorTest, ADeviceWithoutRoomIsLeftAloneUntilTheNextRelease) {
    no_room = true;
    Collector collector(driver, soon);
    collector.released();
    EXPECT_TRUE(comes_true([this] { return refused == 1; }));
    std::this_thread::sleep_for(50ms);
    EXPECT_EQ(refused, 1);
    no_room = false;
    collector.released();
    EXPECT_TRUE(comes_true([this] { return released == 1; }));
}

TEST_F(CollectorTest, WhatCouldNotBeReleasedIsReleasedNextTimeAndAtTheEnd) {
    stuck = true;
    {
        Collector collector(driver, soon);
        collector.released();
        EXPECT_TRUE(comes_true([this] { return refused == 1; }));
        collector.released();
        EXPECT_TRUE(comes_true([this] { return refused == 2; }));
        EXPECT_EQ(created, 1) << "it must not take more and more";
        stuck = false;
    }
    EXPECT_EQ(released, 1);
    EXPECT_EQ(free(), 8 * MiB);
}

// ── in a pool ────────────────────────────────────────────────────────────────────────────────────────────

PoolOptions collecting() {
    PoolOptions options = small_pool();
    options.collect_seconds = soon;
    return options;
}

TEST(CollectingPool, ASleepIsCollectedAndTheWakeFindsEverythingAsItWas) {
    Rig rig(on_cuda, collecting());
    const Written written = rig.write(16 * MiB, "weights");
    for (int i = 0; i < 3; ++i) {
        const unsigned long before = rig.fake->calls("cuMemRelease");
        rig->sleep(1);  // which releases nothing itself: the mappings hold the memory
        EXPECT_TRUE(comes_true([&] { return rig.fake->calls("cuMemRelease") > before; }));
        EXPECT_TRUE(comes_true([&] { return rig.fake->live("handles") == 0; }));
        rig->wake({});
        EXPECT_TRUE(written.intact());
    }
}

TEST(CollectingPool, ATimeThatIsNoneIsRefused) {
    for (const double seconds :
         {-0.1, 3601.0, std::numeric_limits<double>::infinity(), std::numeric_limits<double>::quiet_NaN()}) {
        PoolOptions options = small_pool();
        options.collect_seconds = seconds;
        EXPECT_THROW(Rig(on_cuda, options), invalid_argument) << seconds;
    }
}

TEST(CollectingPool, OneThatMustNotMakesNoCallOfItsOwn) {
    Rig rig(on_cuda);
    rig.write(16 * MiB, "weights");
    rig->sleep(1);
    const unsigned long before = rig.fake->calls("cuMemCreate");
    std::this_thread::sleep_for(100ms);
    EXPECT_EQ(rig.fake->calls("cuMemCreate"), before);
}

TEST(CollectingPool, DevicesThatDoTheirBooksAtOnceAreLeftAlone) {
    for (const Kind& kind : {on_host, on_acl}) {
        Rig rig(kind, collecting());
        rig.write(16 * MiB, "weights");
        rig->sleep(1);
        std::atomic<int> created = 0;
        rig.steering->before([&](std::string_view call) { created += call == "create" ? 1 : 0; });
        std::this_thread::sleep_for(100ms);
        EXPECT_EQ(created, 0) << kind;
        rig.steering->before(nullptr);
    }
}

}  // namespace
}  // namespace dormouse
