// Every call of the device's library, made by every request to the pool, fails: alone, together with the next dozen (so
// that the waits of a roll-back fail too and the device then works again), or together with all that follow it.
// Whatever happens, the pool is as before or where it was told to go, the bytes of what is resident are right at once,
// all that should have survived is right after the device has recovered, and nothing leaks.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "dormouse/error.hpp"
#include "support/rig.hpp"
#include "support/unruly_driver.hpp"

namespace dormouse {
namespace {

using namespace dormouse::testing;

constexpr std::size_t KiB = 1024;
constexpr std::size_t unit = 64 * KiB;  // the device's granularity here

// Calls that fail together, so that the waits of a roll-back are among them.
constexpr unsigned burst = 12;

// ThreadSanitizer makes every mapping slow.
#if defined(__SANITIZE_THREAD__)
constexpr bool quick = true;
#else
constexpr bool quick = false;
#endif

using States = std::map<std::string, TagState>;

PoolOptions options() {
    PoolOptions chosen = small_pool();
    chosen.chunk_bytes = unit;
    chosen.grain_bytes = unit / 4;
    chosen.keep_up_to = unit;
    chosen.store.threads = 1;  // calls in the same order every time
    chosen.store.ring_buffer = unit;
    chosen.memory_retries = 1;
    chosen.store.pull_pace = {.probe_bytes = unit / 4,
                              .batch_bytes = unit / 4,
                              .pull_bytes = unit / 4,
                              .late_seconds = 2e-4,
                              .round_seconds = 4e-4,
                              .nap_seconds = 1e-4};
    return chosen;
}

// Time that passes only where somebody sleeps: what is asked of a device is then the same every time, too.
Clock& still_time() {
    static VirtualClock clock;
    return clock;
}

// ── one vendor's codes and names ────────────────────────────────────────────────────────────────────────

struct Vendor {
    int out_of_memory;
    int generic;
    std::set<std::string> can_run_out;  // symbols that answer out_of_memory on a real device
    std::set<std::string> give_back;    // symbols whose failure may lose addresses, streams or pinned memory
    std::set<std::string> contexts;     // asked for before each of them
    std::string unmap;
};

const Vendor nvidia{
    2,
    999,
    {"cuMemCreate", "cuMemMap", "cuMemSetAccess", "cuMemHostAlloc", "cuMemHostRegister_v2", "cuMemAlloc_v2",
     "cuStreamCreateWithPriority", "cuModuleLoadData", "cuLaunchKernel", "cuMemAddressReserve"},
    {"cuMemAddressFree", "cuMemHostUnregister", "cuMemFreeHost", "cuStreamDestroy_v2"},
    {"cuCtxGetCurrent", "cuCtxSetCurrent"},
    "cuMemUnmap"};

const Vendor huawei{207001,
                    507899,
                    {"aclrtMallocPhysical", "aclrtMapMem", "aclrtMallocHost", "aclrtHostRegisterV2",
                     "aclrtCreateStreamWithConfig", "aclrtReserveMemAddress"},
                    {"aclrtReleaseMemAddress", "aclrtHostUnregister", "aclrtFreeHost", "aclrtDestroyStream"},
                    {"aclrtGetCurrentContext", "aclrtSetCurrentContext"},
                    "aclrtUnmapMem"};

// ── what is broken ──────────────────────────────────────────────────────────────────────────────────────

// A small engine: weights in two chunks, a KV cache in two, a small tensor under kv_cache.
class Engine {
   public:
    explicit Engine(const Kind& kind) : rig(kind, options(), 64 * MiB, unit, &still_time()) {
        weights = rig.write(2 * unit, "weights");
        cache = rig.write(2 * unit, "kv_cache");
        small = rig.write(unit, "kv_cache");
    }

    States states() const {
        States result;
        for (const auto& [tag, stats] : rig->stats().tags) {
            result[tag] = stats.state;
        }
        return result;
    }

    Rig rig;
    Written weights, cache, small;
    Address extra = 0;  // of scenes that allocate or free
    std::size_t expected_segments = 3;
};

struct Scene {
    const char* name;
    std::function<void(Engine&)> prepare;
    std::function<void(Engine&)> act;
    // The states of the tags that it changes, when it works.
    States after;
    // Whether a failure may leave the pool there too (a sleep that could not give all memory back).
    bool forward;
    bool needs_digests = false;
    bool needs_pulls = false;
};

constexpr TagState resident = TagState::resident;
constexpr TagState offloaded = TagState::offloaded;
constexpr TagState discarded = TagState::discarded;

void nothing(Engine&) {}
void sleep_one(Engine& engine) {
    engine.rig->sleep(1);
}
void sleep_two(Engine& engine) {
    engine.rig->sleep(2);
}
void sleep_and_clear(Engine& engine) {
    engine.rig->sleep(1);
    engine.rig.fake->stall(12);  // the copy engine moves again before the wake is over
}
void wake_all(Engine& engine) {
    engine.rig->wake({});
}
void sleep_and_wake(Engine& engine) {
    sleep_one(engine);
    wake_all(engine);
    engine.rig.rewrite(engine.cache);
}
// A byte that nobody was told of, in the second chunk.
void write_unseen(Engine& engine) {
    Written& weights = engine.weights;
    flip(weights.address + unit + 77);
    weights.digest = digest_at(weights.address, weights.bytes);
}
void change_twice(Engine& engine) {
    for (int i = 0; i < 2; ++i) {
        sleep_and_wake(engine);
        write_unseen(engine);
    }
}
void allocate(Engine& engine) {
    engine.extra = engine.rig->malloc(2 * unit, "weights");
    ++engine.expected_segments;
}
void allocate_and_sleep(Engine& engine) {
    allocate(engine);
    sleep_one(engine);
}
void release(Engine& engine) {
    --engine.expected_segments;  // whatever happens, a free is never refused
    engine.rig->free(engine.extra);
    engine.extra = 0;
}
void stage(Engine& engine) {
    engine.rig->stage({.bytes_per_second = 0, .piece_bytes = unit / 2});
    engine.rig->wait_staged();
    if (const std::string why = engine.rig->stats().staging.error; !why.empty()) {
        throw error(why);
    }
}

const std::vector<Scene> scenes{
    {"sleep 1, the first", nothing, sleep_one, {{"weights", offloaded}, {"kv_cache", discarded}}, true},
    {"sleep 1, again", sleep_and_wake, sleep_one, {{"weights", offloaded}, {"kv_cache", discarded}}, true},
    {"sleep 1, marked dirty",
     [](Engine& engine) {
         sleep_and_wake(engine);
         engine.rig->mark_dirty({});
     },
     sleep_one,
     {{"weights", offloaded}, {"kv_cache", discarded}},
     true},
    {"sleep 1, changed twice", change_twice, sleep_one, {{"weights", offloaded}, {"kv_cache", discarded}}, true, true},
    {"sleep 1, staged", stage, sleep_one, {{"weights", offloaded}, {"kv_cache", discarded}}, true, true},
    {"sleep 2", nothing, sleep_two, {{"weights", discarded}, {"kv_cache", discarded}}, true},
    {"sleep 2 from 1", sleep_one, sleep_two, {{"weights", discarded}, {"kv_cache", discarded}}, true},
    {"sleep with a list",
     nothing,
     [](Engine& engine) { engine.rig->sleep(std::vector<std::string>{"kv_cache"}); },
     {{"weights", discarded}, {"kv_cache", offloaded}},
     true},
    {"wake all", sleep_one, wake_all, {{"weights", resident}, {"kv_cache", resident}}, false},
    {"wake all from 2", sleep_two, wake_all, {{"weights", resident}, {"kv_cache", resident}}, false},
    {"wake all, clearing",
     sleep_and_clear,
     wake_all,
     {{"weights", resident}, {"kv_cache", resident}},
     false,
     false,
     true},
    {"wake weights", sleep_one, [](Engine& engine) { engine.rig->wake({"weights"}); }, {{"weights", resident}}, false},
    {"wake kv_cache",
     sleep_one,
     [](Engine& engine) { engine.rig->wake({"kv_cache"}); },
     {{"kv_cache", resident}},
     false},
    {"discard resident",
     nothing,
     [](Engine& engine) { engine.rig->discard({"kv_cache"}); },
     {{"kv_cache", discarded}},
     true},
    {"discard offloaded",
     sleep_one,
     [](Engine& engine) { engine.rig->discard({"weights"}); },
     {{"weights", discarded}},
     true},
    {"malloc", nothing, allocate, {}, false},
    {"free", allocate, release, {}, false},
    {"free asleep", allocate_and_sleep, release, {}, false},
    {"stage", nothing, stage, {}, false, true},
    {"stage again", stage, stage, {}, false, true},
};

// ── the matrix ──────────────────────────────────────────────────────────────────────────────────────────

struct Fault {
    unsigned n;  // the call that fails, from the beginning of the request
    int code;
    unsigned times;
};

class Matrix {
   public:
    Matrix(const Kind& kind, const Vendor& vendor, const Scene& scene) : kind_(kind), vendor_(vendor), scene_(scene) {}

    // Returns how many faults were tried.
    std::size_t run() {
        learn();
        std::size_t tried = 0;
        for (unsigned n = 1; n <= calls_.size() && !::testing::Test::HasFailure(); ++n) {
            for (const int code : {vendor_.generic, vendor_.out_of_memory}) {
                if (code == vendor_.out_of_memory && !vendor_.can_run_out.contains(calls_[n - 1])) {
                    continue;
                }
                for (const unsigned times : {1U, burst, FakeLibrary::for_ever}) {
                    if (times == burst && quick) {
                        continue;
                    }
                    SCOPED_TRACE(
                        std::string(scene_.name) + ": call " + std::to_string(n) + ", " + calls_[n - 1] + ", answers " +
                        std::to_string(code) +
                        (times == FakeLibrary::for_ever ? " for ever" : " " + std::to_string(times) + " times"));
                    try_one({n, code, times});
                    ++tried;
                }
            }
        }
        return tried;
    }

   private:
    // Plays the scene without a fault and keeps the names of its calls.
    void learn() {
        Engine engine(kind_);
        scene_.prepare(engine);
        const unsigned long begin = engine.rig.fake->calls(nullptr);
        scene_.act(engine);
        const unsigned long end = engine.rig.fake->calls(nullptr);
        for (unsigned long k = begin; k < end; ++k) {
            calls_.emplace_back(engine.rig.fake->call_name(k));
        }
        const auto unmap = std::find(calls_.begin(), calls_.end(), vendor_.unmap);
        before_unmap_ = static_cast<unsigned>(unmap - calls_.begin());
        EXPECT_FALSE(calls_.empty());
    }

    void try_one(const Fault& fault) {
        Engine engine(kind_);
        scene_.prepare(engine);
        const States before = engine.states();
        const unsigned long begin = engine.rig.fake->calls(nullptr);
        engine.rig.fake->fail(nullptr, fault.n, fault.code, fault.times);
        bool threw = false;
        try {
            scene_.act(engine);
        } catch (const error&) {
            threw = true;
        }
        engine.rig.fake->heal();
        const unsigned long failed = begin + fault.n - 1;
        const bool happened = failed < engine.rig.fake->calls(nullptr);
        engine.rig.may_lose = fault.times != 1 || (happened && may_lose(engine.rig.fake->call_name(failed)));
        look(engine, before, threw, fault);
        recover(engine, before);
    }

    // A lost address range, stream or pinned block is one that its own give-back failed for, or the way to it. `failed`
    // is the call that did fail: the store unpins in a thread of its own, so the n-th call is not always the same.
    bool may_lose(const std::string& failed) const {
        const auto gives_back = [this](const std::string& name) { return vendor_.give_back.contains(name); };
        return gives_back(failed) ||
               (vendor_.contexts.contains(failed) && std::any_of(calls_.begin(), calls_.end(), gives_back));
    }

    void look(Engine& engine, const States& before, bool threw, const Fault& fault) {
        States wanted = before;
        for (const auto& [tag, state] : scene_.after) {
            wanted[tag] = state;
        }
        const States now = engine.states();
        if (!threw) {
            EXPECT_EQ(now, wanted) << "it said that it worked";
        } else if (scene_.forward && fault.n > before_unmap_) {
            EXPECT_TRUE(now == before || now == wanted) << "neither as before nor where it should go";
        } else {
            EXPECT_EQ(now, before) << "it failed before there was no way back";
        }
        intact(engine, before, now);
        if (scene_.forward && !threw) {
            EXPECT_EQ(engine.rig.mapped(), resident_bytes(engine, now)) << "asleep, and memory still held";
        }
    }

    static std::size_t resident_bytes(const Engine& engine, const States& now) {
        std::size_t sum = 0;
        for (const auto& [tag, stats] : engine.rig->stats().tags) {
            sum += now.at(tag) == resident ? stats.bytes : 0;
        }
        return sum;
    }

    // What has been resident all the time has kept its bytes; what came back from a backup is right.
    static void intact(const Engine& engine, const States& before, const States& now) {
        if (now.at("weights") == resident && before.at("weights") != discarded) {
            EXPECT_TRUE(engine.weights.intact());
        }
        if (now.at("kv_cache") == resident) {
            EXPECT_TRUE(engine.small.intact());
            if (before.at("kv_cache") != discarded) {
                EXPECT_TRUE(engine.cache.intact());
            }
        }
    }

    // The device works again: everything can wake, sleep once more, wake, and has its bytes.
    static void recover(Engine& engine, const States& before) {
        Rig& rig = engine.rig;
        const States reached = engine.states();
        const auto lost = [&](const char* tag) { return before.at(tag) == discarded || reached.at(tag) == discarded; };
        rig->wake({});
        EXPECT_EQ(engine.states(), (States{{"weights", resident}, {"kv_cache", resident}}));
        if (lost("weights")) {
            rig.rewrite(engine.weights);
        }
        if (lost("kv_cache")) {
            rig.rewrite(engine.cache);
        }
        rig->sleep(std::vector<std::string>{"weights", "kv_cache"});
        EXPECT_EQ(rig.mapped(), 0U) << "a later sleep gives back what an earlier one could not";
        EXPECT_EQ(rig.fake->live("handles"), 0U);
        EXPECT_EQ(rig.fake->live("mappings"), 0U);
        rig->wake({});
        EXPECT_TRUE(engine.weights.intact());
        EXPECT_TRUE(engine.cache.intact());
        EXPECT_TRUE(engine.small.intact());
        std::size_t segments = 0;
        for (const auto& [tag, stats] : rig->stats().tags) {
            segments += stats.segments;
        }
        EXPECT_EQ(segments, engine.expected_segments);
        rig.close();
    }

    const Kind& kind_;
    const Vendor& vendor_;
    const Scene& scene_;
    std::vector<std::string> calls_;
    unsigned before_unmap_ = 0;
};

class FailureTest : public ::testing::TestWithParam<Kind> {};
INSTANTIATE_TEST_SUITE_P(On, FailureTest, ::testing::Values(on_cuda, on_cuda_ring, on_acl, on_acl_ring),
                         ::testing::PrintToStringParamName());

TEST_P(FailureTest, AnyCallMayFailAndNothingIsLost) {
    const bool cuda = std::strcmp(GetParam().driver, "cuda") == 0;
    const Vendor& vendor = cuda ? nvidia : huawei;
    std::size_t sum = 0;
    for (const Scene& scene : scenes) {
        const bool pulls = cuda && std::strcmp(GetParam().store, "registered") == 0;
        if ((scene.needs_digests && !cuda) || (scene.needs_pulls && !pulls)) {
            continue;
        }
        const std::size_t tried = Matrix(GetParam(), vendor, scene).run();
        std::printf("%-16s %-22s %4zu faults\n", GetParam().name, scene.name, tried);
        sum += tried;
        if (HasFailure()) {
            break;
        }
    }
    std::printf("%-16s %-22s %4zu faults\n", GetParam().name, "in all", sum);
}

TEST_P(FailureTest, AnyCallMayFailWhileAPoolIsMadeAndNothingStays) {
    const bool cuda = std::strcmp(GetParam().driver, "cuda") == 0;
    FakeLibrary& fake = cuda ? FakeLibrary::cuda() : FakeLibrary::acl();
    const auto make = [&] {
        DriverOptions where;
        where.library = fake.path;
        PoolOptions chosen = options();
        chosen.store.kind = "auto";
        Pool pool(make_driver(GetParam().driver, where), 0, chosen);
    };
    fake.reset(64 * MiB);
    fake.granularity(unit);
    make();
    const auto calls = static_cast<unsigned>(fake.calls(nullptr));
    unsigned refused = 0;
    for (unsigned n = 1; n <= calls; ++n) {
        SCOPED_TRACE(n);
        fake.reset(64 * MiB);
        fake.granularity(unit);
        fake.fail(nullptr, n, cuda ? nvidia.generic : huawei.generic, 1);
        try {
            make();
        } catch (const error&) {
            ++refused;
            EXPECT_EQ(fake.live("bytes"), 0U);
            EXPECT_EQ(fake.live("streams"), 0U);
            EXPECT_EQ(fake.violations(), 0U) << fake.last_violation();
        }
    }
    EXPECT_GT(refused, 0U);
}

}  // namespace
}  // namespace dormouse
