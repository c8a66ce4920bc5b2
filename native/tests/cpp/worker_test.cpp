#include "stores/worker.hpp"

#include <gtest/gtest.h>

#include <future>
#include <memory>
#include <stdexcept>
#include <vector>

#include "support/unruly_driver.hpp"

namespace dormouse {
namespace {

TEST(Worker, DoesTasksInOrderAndFinishWaitsForTheLast) {
    Worker worker(real_clock());
    std::vector<int> done;
    for (int i = 0; i < 100; ++i) {
        worker.post([&done, i] { done.push_back(i); });
    }
    worker.finish();
    ASSERT_EQ(done.size(), 100u);
    EXPECT_TRUE(std::is_sorted(done.begin(), done.end()));
    worker.finish();
}

TEST(Worker, FinishOfOneThatNeverWorkedReturns) {
    Worker worker(real_clock());
    worker.finish();
}

TEST(Worker, AFailureDropsTheRestAndIsThrownByFinishAndByEveryLaterPost) {
    Worker worker(real_clock());
    std::promise<void> go;
    bool later = false;
    worker.post([&] {
        go.get_future().wait();
        throw std::runtime_error("broken");
    });
    worker.post([&] { later = true; });
    go.set_value();
    EXPECT_THROW(worker.finish(), std::runtime_error);
    EXPECT_THROW(worker.post([&] { later = true; }), std::runtime_error);
    EXPECT_THROW(worker.finish(), std::runtime_error);
    EXPECT_FALSE(later);
}

TEST(Worker, ItsEndWaitsForTheTaskUnderWayAndDropsTheOthers) {
    std::promise<void> started;
    bool first = false, second = false;
    const auto held = std::make_shared<int>(1);
    {
        Worker worker(real_clock());
        worker.post([&] {
            started.set_value();
            std::this_thread::sleep_for(std::chrono::milliseconds(20));
            first = true;
        });
        worker.post([&second, held] { second = true; });
        started.get_future().wait();
    }
    EXPECT_TRUE(first);
    EXPECT_FALSE(second);
    EXPECT_EQ(held.use_count(), 1) << "a dropped task is destroyed";
}

TEST(Worker, HandsTimeOverBothWays) {
    VirtualClock clock;
    VirtualClock::time() = 10;
    Worker worker(clock);
    double begun = 0;
    worker.post([&] {
        begun = clock.now();
        clock.sleep(5);
    });
    worker.finish();
    EXPECT_EQ(begun, 10);
    EXPECT_EQ(clock.now(), 15);
    VirtualClock::time() = 0;
}

}  // namespace
}  // namespace dormouse
