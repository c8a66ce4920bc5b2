// What a pool promises to those who use it at the same time: other threads, and a forked child.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <future>
#include <mutex>

#include "dormouse/error.hpp"
#include "support/rig.hpp"

namespace dormouse {
namespace {

using namespace dormouse::testing;
using namespace std::chrono_literals;

// Stops the first thread that makes a call of the driver, until it is let go.
class Gate {
   public:
    Gate(Steering& steering, std::string call) : steering_(steering) {
        steering.before([this, call](std::string_view now) {
            if (now == call && !used_.exchange(true)) {
                reached_.set_value();
                open_.get_future().wait();
            }
        });
    }
    ~Gate() { open(); }
    Gate(const Gate&) = delete;
    Gate& operator=(const Gate&) = delete;
    void wait() { EXPECT_EQ(reached_.get_future().wait_for(20s), std::future_status::ready) << "nobody came"; }
    void open() {
        if (!opened_.exchange(true)) {
            open_.set_value();
            steering_.before({});
        }
    }

   private:
    Steering& steering_;
    std::atomic<bool> used_{false};
    std::atomic<bool> opened_{false};
    std::promise<void> reached_;
    std::promise<void> open_;
};

class TogetherTest : public ::testing::TestWithParam<Kind> {};
INSTANTIATE_TEST_SUITE_P(On, TogetherTest, ::testing::Values(on_host, on_cuda, on_cuda_ring, on_acl),
                         ::testing::PrintToStringParamName());

TEST_P(TogetherTest, ATransitionOfOneTagHoldsUpNoAllocationOfAnother) {
    for (const char* call : {"synchronize_device", "unmap"}) {
        Rig rig(GetParam());
        const Written weights = rig.write(6 * MiB, "weights");
        const Written old = rig.write(2 * MiB, "other");
        Gate gate(*rig.steering, call);
        auto discard = std::async(std::launch::async, [&] { rig->discard({"weights"}); });
        gate.wait();
        auto rest = std::async(std::launch::async, [&] {
            EXPECT_THROW(rig->malloc(1, "weights"), illegal_state);
            const Written fresh = rig.write(4 * MiB, "other");
            EXPECT_TRUE(fresh.intact());
            rig->free(old.address);
            return fresh;
        });
        const bool prompt = rest.wait_for(20s) == std::future_status::ready;
        gate.open();
        EXPECT_TRUE(prompt) << "while it was in " << call;
        discard.get();
        EXPECT_TRUE(rest.get().intact());
        EXPECT_EQ(rig.state("weights"), TagState::discarded);
        EXPECT_EQ(rig->size_of(weights.address), weights.bytes);
    }
}

TEST_P(TogetherTest, AFreeOfATagInTransitionWaitsForItsEnd) {
    Rig rig(GetParam());
    const Written gone = rig.write(6 * MiB, "weights");
    const Written stays = rig.write(2 * MiB, "weights");
    Gate gate(*rig.steering, "copy_to_host");
    auto sleep = std::async(std::launch::async, [&] { rig->sleep(1); });
    gate.wait();
    auto free = std::async(std::launch::async, [&] { rig->free(gone.address); });
    EXPECT_EQ(free.wait_for(50ms), std::future_status::timeout);
    EXPECT_EQ(rig.state("weights"), TagState::in_transition);
    gate.open();
    sleep.get();
    free.get();
    EXPECT_EQ(rig.tag("weights").segments, 1U);
    EXPECT_EQ(rig->stats().store.reserved, stays.bytes);
    rig->wake({});
    EXPECT_TRUE(stays.intact());
}

TEST_P(TogetherTest, TransitionsExcludeOneAnother) {
    Rig rig(GetParam());
    const Written segment = rig.write(6 * MiB, "weights");
    Gate gate(*rig.steering, "copy_to_host");
    auto sleep = std::async(std::launch::async, [&] { rig->sleep(1); });
    gate.wait();
    auto wake = std::async(std::launch::async, [&] { rig->wake({}); });
    EXPECT_EQ(wake.wait_for(50ms), std::future_status::timeout);
    gate.open();
    sleep.get();
    wake.get();
    EXPECT_EQ(rig.state("weights"), TagState::resident);
    EXPECT_TRUE(segment.intact());
}

// Whatever the staging has begun on a segment is over before the free asks the device to wait for all work.
TEST(FreeWhileStaging, WaitsForTheDeviceOnlyWhenNoMoreCopiesCanBegin) {
    Rig rig(on_cuda);
    const Written segment = rig.write(6 * MiB, "weights");
    std::promise<void> copying;
    std::promise<void> go_on;
    std::atomic<bool> failing{false};
    std::atomic<bool> queued{false};
    std::atomic<bool> waited{false};
    rig.steering->before([&](std::string_view call) {
        if (call == "copy_to_host" && !queued.exchange(true)) {
            copying.set_value();
            go_on.get_future().wait();
            failing = true;
        } else if (call == "synchronize" && failing) {
            throw driver_error("synchronize", 1, "injected: the copy is under way and nobody can wait for it");
        } else if (call == "synchronize_device" && failing) {
            waited = true;
        } else if (call == "unmap") {
            EXPECT_TRUE(waited) << "memory was taken away under a copy";
        }
    });
    rig->stage({.bytes_per_second = 0, .piece_bytes = MiB});
    copying.get_future().wait();
    auto free = std::async(std::launch::async, [&] { rig->free(segment.address); });
    EXPECT_EQ(free.wait_for(100ms), std::future_status::timeout) << "a copy of its bytes is about to begin";
    go_on.set_value();
    free.get();
    rig->wait_staged();
    rig.steering->before({});
    EXPECT_EQ(rig.mapped(), 0U);
    EXPECT_EQ(rig->stats().store.reserved, 0U);
}

// ── fork ────────────────────────────────────────────────────────────────────────────────────────────────

// Exit code 0 when the child was refused everything, called nothing and ended well.
int child_of(Rig& rig, Address address) {
    const unsigned long calls = rig.fake->calls(nullptr);
    int wrong = 0;
    const auto refused = [&](auto action) {
        try {
            action();
            ++wrong;
        } catch (const illegal_state&) {
        } catch (...) {
            ++wrong;
        }
    };
    refused([&] { rig->malloc(1, "weights"); });
    refused([&] { rig->free(address); });
    refused([&] { rig->sleep(1); });
    refused([&] { rig->wake({}); });
    refused([&] { rig->discard({"weights"}); });
    refused([&] { rig->size_of(address); });
    // Before any book is looked at: a thread of the parent may have held its lock when it forked.
    refused([&] { rig->sleep(std::vector<std::string>{"unknown"}); });
    refused([&] { rig->wake({"unknown"}); });
    refused([&] { rig->discard({"unknown"}); });
    refused([&] { rig->stage({}); });
    refused([&] { rig->wait_staged(); });
    refused([&] { rig->stop_staging(); });
    refused([&] { rig->mark_dirty({}); });
    refused([&] { rig->release_backups({}); });
    refused([&] { rig->stats(); });
    rig.pool.reset();
    wrong += rig.fake->calls(nullptr) != calls ? 100 : 0;
    return wrong;
}

int fork_with(Rig& rig, Address address) {
    const pid_t child = ::fork();
    if (child == 0) {
        ::_exit(child_of(rig, address));
    }
    int status = -1;
    ::waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

class ForkTest : public ::testing::TestWithParam<Kind> {};
INSTANTIATE_TEST_SUITE_P(On, ForkTest, ::testing::Values(on_cuda, on_cuda_ring, on_acl),
                         ::testing::PrintToStringParamName());

TEST_P(ForkTest, AForkedChildIsRefusedAndTouchesNothingAndTheParentGoesOn) {
    Rig rig(GetParam());
    const Written segment = rig.write(6 * MiB, "weights");
    EXPECT_EQ(fork_with(rig, segment.address), 0);
    EXPECT_TRUE(segment.intact());
    rig->sleep(1);
    EXPECT_EQ(fork_with(rig, segment.address), 0);
    rig->wake({});
    EXPECT_TRUE(segment.intact());
}

TEST(ForkWhileStaging, AForkedChildIsRefusedAndTouchesNothing) {
    Rig rig(on_cuda);
    const Written segment = rig.write(6 * MiB, "weights");
    rig->stage({.bytes_per_second = 0.001, .piece_bytes = MiB});
    while (rig->stats().staging.done_bytes == 0) {
        std::this_thread::sleep_for(1ms);
    }
    EXPECT_EQ(fork_with(rig, segment.address), 0);
    rig->sleep(1);
    rig->wake({});
    EXPECT_TRUE(segment.intact());
}

}  // namespace
}  // namespace dormouse
