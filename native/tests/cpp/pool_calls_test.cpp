// Which calls a pool makes of its driver, how often and in which order: that is where its speed comes from.
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "support/rig.hpp"

namespace dormouse {
namespace {

using namespace dormouse::testing;
using Calls = std::vector<std::string>;

class CallsTest : public ::testing::TestWithParam<Kind> {
   protected:
    // What is called of the driver while `action` runs.
    template <typename Action>
    static Calls during(Rig& rig, Action action) {
        struct Seen {
            std::mutex mutex;
            Calls calls;
        };
        // Shared, since a thread of the store may still be in the hook when it is taken away.
        const auto seen = std::make_shared<Seen>();
        rig.steering->before([seen](std::string_view call) {
            const std::lock_guard lock(seen->mutex);
            seen->calls.emplace_back(call);
        });
        action();
        rig.steering->before({});
        const std::lock_guard lock(seen->mutex);
        return seen->calls;
    }

    static Calls phases(const Transition& transition) {
        Calls names;
        for (const auto& [name, seconds] : transition.phases) {
            names.push_back(name);
            EXPECT_GE(seconds, 0) << name;
        }
        return names;
    }
};
INSTANTIATE_TEST_SUITE_P(On, CallsTest, ::testing::Values(on_host, on_cuda, on_acl),
                         ::testing::PrintToStringParamName());

std::ptrdiff_t count(const Calls& calls, const char* call) {
    return std::count(calls.begin(), calls.end(), call);
}

TEST_P(CallsTest, AFreeWaitsForTheDeviceOnceIfItsMemoryIsMappedAndElseNotAtAll) {
    Rig rig(GetParam());
    std::vector<Address> weights;
    for (int i = 0; i < 3; ++i) {
        weights.push_back(rig.write(6 * MiB, "weights").address);
    }
    const Address cache = rig.write(6 * MiB, "kv_cache").address;
    const Calls resident = during(rig, [&] { rig->free(weights[0]); });
    EXPECT_EQ(count(resident, "synchronize_device"), 1);
    EXPECT_EQ(resident.front(), "synchronize_device") << "before anything is unmapped";
    rig->sleep(1);
    for (const Address asleep : {weights[1], cache}) {
        const Calls calls = during(rig, [&] { rig->free(asleep); });
        EXPECT_EQ(count(calls, "synchronize_device") + count(calls, "synchronize"), 0);
        EXPECT_EQ(count(calls, "unmap"), 0);
    }
}

TEST_P(CallsTest, AWakeMapsAheadOfItsCopiesAndWaitsOnceAtItsEnd) {
    PoolOptions options = small_pool();
    options.store.pull = false;
    Rig rig(GetParam(), options);
    const Written weights = rig.write(10 * MiB, "weights");  // three chunks
    rig.write(6 * MiB, "kv_cache");                          // two, larger than what is kept
    rig->sleep(1);
    if (rig->stats().store.kind != "registered") {
        GTEST_SKIP() << "a ring waits for its buffers: " << rig->stats().store.reason;
    }
    const Calls calls = during(rig, [&] { rig->wake({}); });
    Calls without_content{"create", "map", "allow"};
    if (rig->driver().mapping_keeps_memory()) {
        without_content.emplace_back("release");
    }
    Calls one = without_content;
    one.emplace_back("copy_to_device");
    Calls wanted{"memory"};
    for (int chunk = 0; chunk < 3; ++chunk) {
        wanted.insert(wanted.end(), one.begin(), one.end());
    }
    for (int chunk = 0; chunk < 2; ++chunk) {  // while the copies run
        wanted.insert(wanted.end(), without_content.begin(), without_content.end());
    }
    wanted.emplace_back("synchronize");
    EXPECT_EQ(calls, wanted);
    EXPECT_TRUE(weights.intact());
}

TEST_P(CallsTest, AWakeThatMayBePulledWaitsForNothingBeforeItsEndEither) {
    PoolOptions options = small_pool();
    options.store.pull_pace.probe_bytes = MiB;
    Rig rig(GetParam(), options);
    const Written weights = rig.write(10 * MiB, "weights");
    rig.write(6 * MiB, "kv_cache");
    rig->sleep(1);
    if (!rig->stats().store.pulls) {
        GTEST_SKIP() << "nothing is pulled here";
    }
    const Calls calls = during(rig, [&] { rig->wake({}); });
    const auto first = [&](const char* name) { return std::find(calls.begin(), calls.end(), name); };
    const auto last = [&](const char* name) { return std::find(calls.rbegin(), calls.rend(), name).base(); };
    EXPECT_LT(first("copy_to_device"), last("map")) << "memory is mapped while the first copies run";
    EXPECT_LT(last("allow"), first("synchronize"));
    EXPECT_LE(last("copy_to_device"), first("synchronize"));
    EXPECT_TRUE(weights.intact());
}

TEST_P(CallsTest, ASleepOfUnchangedBytesIsOneWaitOneDigestAndTheUnmapping) {
    Rig rig(GetParam());
    rig.write(10 * MiB, "weights");
    rig->sleep(1);
    rig->wake({});
    const Calls calls = during(rig, [&] { rig->sleep(1); });
    if (!rig.digests) {
        EXPECT_EQ(count(calls, "digest"), 0);
        EXPECT_EQ(count(calls, "copy_to_host"), 3) << "nothing else could tell whether the backups are still right";
        return;
    }
    EXPECT_EQ(calls, (Calls{"synchronize_device", "digest", "unmap", "unmap", "unmap"}));
}

TEST_P(CallsTest, AHandleGoesOnceItsMemoryIsUsableOrWhereTheMappingDoesNotKeepItAfterTheUnmap) {
    Rig rig(GetParam());
    const bool early = std::string(GetParam().driver) != "acl";
    EXPECT_EQ(rig->driver().mapping_keeps_memory(), early);
    const auto about_memory = [&](const auto& action) {
        Calls calls = during(rig, action);
        std::erase_if(calls, [](const std::string& call) {
            return call != "create" && call != "map" && call != "allow" && call != "unmap" && call != "release";
        });
        return calls;
    };
    const Calls up = early ? Calls{"create", "map", "allow", "release"} : Calls{"create", "map", "allow"};
    const Calls down = early ? Calls{"unmap"} : Calls{"unmap", "release"};
    Address address = 0;
    EXPECT_EQ(about_memory([&] { address = rig.write(4 * MiB, "weights").address; }), up);
    for (int round = 0; round < 2; ++round) {
        EXPECT_EQ(about_memory([&] { rig->sleep(1); }), down);
        EXPECT_EQ(about_memory([&] { rig->wake({}); }), up);
    }
    EXPECT_EQ(about_memory([&] { rig->free(address); }), down);
}

TEST_P(CallsTest, EveryPhaseIsNamedInItsOrder) {
    Rig rig(GetParam());
    rig.write(6 * MiB, "weights");
    rig.write(6 * MiB, "kv_cache");
    Calls first{"synchronize", "book", "digest", "copy", "unmap"};
    Calls later{"synchronize", "book", "digest", "unmap"};
    if (!rig.digests) {
        first = later = {"synchronize", "book", "copy", "unmap"};
    }
    EXPECT_EQ(phases(rig->sleep(1)), first);
    EXPECT_EQ(phases(rig->wake({})), (Calls{"check", "queue", "hand_over", "map", "copy"}));
    EXPECT_EQ(phases(rig->sleep(1)), later);
    rig->wake({});
    EXPECT_EQ(phases(rig->discard({"kv_cache"})), (Calls{"synchronize", "book", "unmap"}));
}

}  // namespace
}  // namespace dormouse
