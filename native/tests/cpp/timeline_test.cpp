#include "drivers/timeline.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <utility>
#include <vector>

namespace dormouse {
namespace {

TEST(Timeline, WorkBeginsWhenItIsAskedFor) {
    Timeline line;
    EXPECT_DOUBLE_EQ(line.take(5, 2), 7);
    EXPECT_DOUBLE_EQ(line.take(100, 1), 101);
}

TEST(Timeline, NoWorkTakesNoTimeEvenWhenBusy) {
    Timeline line;
    line.take(0, 10);
    EXPECT_DOUBLE_EQ(line.take(3, 0), 3);
}

TEST(Timeline, WorkQueuesBehindWhatIsBooked) {
    Timeline line;
    line.take(0, 2);
    EXPECT_DOUBLE_EQ(line.take(1, 2), 4);
    EXPECT_DOUBLE_EQ(line.take(0, 1), 5);
}

TEST(Timeline, AnEarlierRequestThatComesLaterFillsTheGap) {
    Timeline line;
    line.take(10, 5);
    EXPECT_DOUBLE_EQ(line.take(2, 3), 5);
    EXPECT_DOUBLE_EQ(line.take(0, 10), 18) << "0 to 2, 5 to 10, then 15 to 18";
}

TEST(Timeline, BlockedTimeIsGoneAroundAndNotTakenUp) {
    Timeline line, blocked;
    blocked.take(1, 2);
    EXPECT_DOUBLE_EQ(line.take(0, 3, &blocked), 5);
    EXPECT_DOUBLE_EQ(line.take(0, 2), 3 + 4 - 4) << "the blocked time from 1 to 3 stayed free";
    EXPECT_DOUBLE_EQ(blocked.take(0, 2), 4) << "blocking books nothing in the other";
}

TEST(Timeline, WhenAllIsDoneDoesNotDependOnTheOrderOfRequests) {
    std::vector<std::pair<double, double>> requests;
    for (int i = 0; i < 50; ++i) {
        requests.emplace_back(0.37 * (i % 17), 0.1 + 0.013 * (i % 7));
    }
    const auto end = [](const std::vector<std::pair<double, double>>& in_order) {
        Timeline line;
        double last = 0;
        for (const auto& [from, work] : in_order) {
            last = std::max(last, line.take(from, work));
        }
        return last;
    };
    const double expected = end(requests);
    std::mt19937 random(3);
    for (int round = 0; round < 50; ++round) {
        std::shuffle(requests.begin(), requests.end(), random);
        EXPECT_NEAR(end(requests), expected, 1e-8);
    }
}

}  // namespace
}  // namespace dormouse
