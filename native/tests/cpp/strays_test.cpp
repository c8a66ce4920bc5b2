// Copies that may still be under way are waited for, also when they were suspected while another thread waited.
#include "strays.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <utility>

#include "dormouse/error.hpp"
#include "support/rig.hpp"

namespace dormouse {
namespace {

using namespace dormouse::testing;

class StraysTest : public ::testing::Test {
   protected:
    StraysTest() {
        steering->before([this](std::string_view call) {
            if (call == "synchronize_device") {
                ++waits;
                if (while_waiting) {
                    std::exchange(while_waiting, {})();
                }
            }
        });
    }

    std::shared_ptr<Steering> steering = std::make_shared<Steering>();
    SteeredDriver driver{make_driver("host", {}), steering};
    Strays strays{driver};
    int waits = 0;
    std::function<void()> while_waiting;
};

TEST_F(StraysTest, AreWaitedForOnce) {
    strays.wait();
    EXPECT_EQ(waits, 0) << "nobody suspects any";
    strays.suspect();
    strays.wait();
    EXPECT_EQ(waits, 1);
    EXPECT_TRUE(strays.gone());
    EXPECT_EQ(waits, 1);
}

TEST_F(StraysTest, AreStillThereAfterAWaitThatFailed) {
    strays.suspect();
    while_waiting = [] { throw driver_error("synchronize_device", 1, "injected"); };
    EXPECT_FALSE(strays.gone());
    EXPECT_TRUE(strays.gone());
    EXPECT_EQ(waits, 2);
}

TEST_F(StraysTest, SuspectedDuringAWaitAreNotCoveredByIt) {
    strays.suspect();
    while_waiting = [this] { strays.suspect(); };  // another thread's transfer fails now
    strays.wait();
    EXPECT_EQ(waits, 1);
    strays.wait();
    EXPECT_EQ(waits, 2);
}

TEST(StraysOfASleep, AreWaitedForBeforeAStagingCopiesToTheSamePlaces) {
    Rig rig(on_cuda);
    const Written segment = rig.write(6 * MiB, "weights");
    std::atomic<bool> copied{false};  // by the threads that copy
    rig.steering->before([&](std::string_view call) {
        if (call == "copy_to_host") {
            copied = true;
        }
        if (copied && (call == "synchronize" || call == "synchronize_device")) {
            throw driver_error(call, 1, "injected");
        }
    });
    EXPECT_THROW(rig->sleep(1), driver_error);
    ASSERT_TRUE(copied);
    ASSERT_EQ(rig->stats().store.reserved, segment.bytes) << "places that a late copy may write to are kept";
    std::atomic<bool> waited{false};
    std::atomic<bool> too_early{false};
    rig.steering->before([&](std::string_view call) {
        if (call == "synchronize_device") {
            waited = true;
        } else if (call == "copy_to_host" && !waited) {
            too_early = true;
        }
    });
    rig->stage({.bytes_per_second = 0, .piece_bytes = MiB});
    rig->wait_staged();
    rig.steering->before({});
    EXPECT_EQ(rig->stats().staging.error, "");
    EXPECT_FALSE(too_early);
    rig->sleep(1);
    rig->wake({});
    EXPECT_TRUE(segment.intact());
}

}  // namespace
}  // namespace dormouse
