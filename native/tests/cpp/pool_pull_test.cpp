// Wakes of a pool on a device that clears memory: what is pulled, when, and what is left when a pull fails. The
// arithmetic of sharing: shared_copy_test.cpp.
#include <gtest/gtest.h>

#include <algorithm>
#include <optional>
#include <tuple>
#include <vector>

#include "dormouse/error.hpp"
#include "dormouse/limits.hpp"
#include "support/rig.hpp"
#include "support/unruly_driver.hpp"

namespace dormouse {
namespace {

using namespace dormouse::testing;

constexpr std::size_t chunk = 4 * MiB;
constexpr unsigned always = 100000;
constexpr int launch_failed = 719;
constexpr int no_memory = 2;

PoolOptions options() {
    PoolOptions chosen = small_pool();
    chosen.chunk_bytes = chunk;
    chosen.store.kind = "registered";
    chosen.store.pull_pace.probe_bytes = MiB;
    chosen.store.pull_pace.batch_bytes = MiB;
    chosen.store.pull_pace.pull_bytes = 2 * MiB;
    return chosen;
}

class PoolPull : public ::testing::Test {
   protected:
    void SetUp() override {
        if (lockable_memory() < 256 * MiB) {
            GTEST_SKIP() << "RLIMIT_MEMLOCK is low: the backup goes through the ring here";
        }
    }
    Rig& open(const PoolOptions& chosen = options()) {
        rig.emplace(on_cuda, chosen, 256 * MiB, 0, &clock);
        weights = rig->write(5 * chunk, "weights");
        cache = rig->write(3 * chunk, "kv_cache");
        return *rig;
    }
    // What a wake pulls, `stalled` questions long while the engine stands still.
    std::size_t wake(unsigned stalled) {
        (*rig)->sleep(1);
        rig->fake->stall(stalled);
        const Transition done = (*rig)->wake({});
        rig->fake->stall(0);
        EXPECT_EQ(done.copied_bytes, 5 * chunk);
        EXPECT_EQ((*rig)->stats().last->pulled_bytes, done.pulled_bytes);
        EXPECT_TRUE(weights.intact());
        return done.pulled_bytes;
    }

    VirtualClock clock;
    std::optional<Rig> rig;
    Written weights, cache;
};

TEST_F(PoolPull, AtRestNothingIsPulled) {
    open();
    EXPECT_TRUE((*rig)->stats().store.pulls);
    EXPECT_EQ(wake(0), 0U);
    EXPECT_EQ((*rig)->stats().last->pulled_bytes, 0U);
}

TEST_F(PoolPull, WhileTheEngineStandsStillAllButWhatItHasIsPulled) {
    open();
    EXPECT_EQ(wake(always), 5 * chunk - 4 * MiB) << "the engine has its probe and three batches";
    EXPECT_EQ(wake(0), 0U);
}

TEST_F(PoolPull, TheLongerTheEngineStandsStillTheMoreIsPulledAndNoMore) {
    open();
    std::vector<std::size_t> pulled;
    for (unsigned stalled = 0; stalled <= 80; stalled += 4) {
        pulled.push_back(wake(stalled));
    }
    EXPECT_TRUE(std::is_sorted(pulled.begin(), pulled.end()));
    EXPECT_EQ(pulled.front(), 0U);
    EXPECT_EQ(pulled.back(), 5 * chunk - 4 * MiB);
    EXPECT_TRUE(std::any_of(pulled.begin(), pulled.end(), [&](std::size_t bytes) {
        return bytes > 0 && bytes < pulled.back();
    })) << "once it moves again pulling ends";
}

TEST_F(PoolPull, WhoWantsNoneGetsNone) {
    PoolOptions chosen = options();
    chosen.store.pull = false;
    open(chosen);
    EXPECT_FALSE((*rig)->stats().store.pulls);
    EXPECT_EQ(wake(always), 0U);
    EXPECT_EQ(rig->fake->calls("cuStreamQuery"), 0U);
    EXPECT_EQ(rig->fake->calls("cuModuleLoadData"), 1U) << "that of the digests";
}

class PoolPullCall : public PoolPull, public ::testing::WithParamInterface<std::tuple<const char*, int>> {};
INSTANTIATE_TEST_SUITE_P(Calls, PoolPullCall,
                         ::testing::Combine(::testing::Values("cuLaunchKernel", "cuStreamQuery"),
                                            ::testing::Values(launch_failed, no_memory)),
                         [](const auto& one) {
                             return std::string(std::get<0>(one.param)) + "_" + std::to_string(std::get<1>(one.param));
                         });

TEST_P(PoolPullCall, ThatFailsLeavesEverythingAsleepAndEveryByteInItsBackup) {
    const auto [call, code] = GetParam();
    open();
    for (const unsigned n : {1U, 2U, 3U}) {
        (*rig)->sleep(1);
        rig->fake->stall(always);
        rig->fake->fail(call, n, code, 1);
        EXPECT_THROW((*rig)->wake({}), error);
        rig->fake->stall(0);
        EXPECT_EQ(rig->state("weights"), TagState::offloaded);
        EXPECT_EQ(rig->state("kv_cache"), TagState::discarded);
        EXPECT_EQ(rig->mapped(), 0U);
        EXPECT_NE((*rig)->stats().last->error.find(call), std::string::npos) << (*rig)->stats().last->error;
        (*rig)->wake({});
        EXPECT_TRUE(weights.intact());
    }
}

TEST_F(PoolPull, WithoutItsKernelEverythingGoesToTheEngine) {
    FakeLibrary& fake = FakeLibrary::cuda();
    fake.reset(256 * MiB);
    fake.fail("cuModuleLoadData", 1, 218, 1);  // the store's, which comes before that of the digests
    DriverOptions where;
    where.library = fake.path;
    Pool pool(make_driver("cuda", where), 0, options());
    EXPECT_FALSE(pool.stats().store.pulls);
    EXPECT_NE(pool.stats().version.find("no pulls: cuModuleLoadData"), std::string::npos) << pool.stats().version;
    EXPECT_EQ(pool.stats().version.find("no digests"), std::string::npos) << pool.stats().version;
    const Address address = pool.malloc(5 * chunk, "weights");
    const std::uint64_t digest = fill(address, 5 * chunk, 7);
    pool.sleep(1);
    fake.stall(always);
    EXPECT_EQ(pool.wake({}).pulled_bytes, 0U);
    EXPECT_EQ(digest_at(address, 5 * chunk), digest);
    EXPECT_EQ(fake.violations(), 0U) << fake.last_violation();
}

}  // namespace
}  // namespace dormouse
