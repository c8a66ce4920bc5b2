// Threads that allocate and free while others stage, sleep, wake and look: every answer is one that a single thread
// could have got, and nothing is lost. ThreadSanitizer runs this too.
#include <gtest/gtest.h>

#include <atomic>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "dormouse/error.hpp"
#include "support/rig.hpp"

namespace dormouse {
namespace {

using namespace dormouse::testing;

constexpr std::size_t unit = 64 * 1024;

// Keeps allocating and freeing under `tag` until told to stop. Content is looked at where nobody moves the tag.
class Allocator {
   public:
    Allocator(Rig& rig, std::string tag, bool moved) : rig_(rig), tag_(std::move(tag)), moved_(moved) {
        thread_ = std::thread([this] { run(); });
    }
    ~Allocator() { stop(); }
    Allocator(const Allocator&) = delete;
    Allocator& operator=(const Allocator&) = delete;

    void stop() {
        stop_ = true;
        if (thread_.joinable()) {
            thread_.join();
        }
    }
    std::atomic<std::size_t> allocated{0};
    std::atomic<std::size_t> refused{0};

   private:
    void run() {
        std::mt19937_64 random(std::hash<std::string>{}(tag_));
        std::vector<Written> mine;
        while (!stop_) {
            if (mine.size() < 4) {
                try {
                    Written fresh;
                    fresh.address = rig_->malloc(1 + random() % (3 * unit), tag_);
                    fresh.bytes = rig_->size_of(fresh.address);
                    if (!moved_) {
                        fresh.digest = fill(fresh.address, fresh.bytes, random());
                    }
                    mine.push_back(fresh);
                    ++allocated;
                } catch (const illegal_state&) {
                    ++refused;  // asleep, or on its way
                    std::this_thread::yield();
                }
            }
            if (mine.size() == 4 || (!mine.empty() && random() % 2 == 0)) {
                const std::size_t which = random() % mine.size();
                EXPECT_TRUE(moved_ || mine[which].intact());
                rig_->free(mine[which].address);
                mine.erase(mine.begin() + static_cast<std::ptrdiff_t>(which));
            }
        }
        for (const Written& left : mine) {
            EXPECT_TRUE(moved_ || left.intact());
            rig_->free(left.address);
        }
    }

    Rig& rig_;
    std::string tag_;
    bool moved_;
    std::atomic<bool> stop_{false};
    std::thread thread_;
};

// Looks at the pool until it goes.
class Watcher {
   public:
    explicit Watcher(Rig& rig)
        : thread_([this, &rig] {
              while (!stop_) {
                  const PoolStats stats = rig->stats();
                  std::size_t mapped = 0;
                  for (const auto& [name, tag] : stats.tags) {
                      EXPECT_LE(tag.mapped_bytes, tag.bytes);
                      EXPECT_LE(tag.backup_bytes, tag.bytes);
                      mapped += tag.mapped_bytes;
                  }
                  EXPECT_EQ(stats.mapped_bytes, mapped);
                  std::this_thread::yield();
              }
          }) {}
    ~Watcher() {
        stop_ = true;
        thread_.join();
    }
    Watcher(const Watcher&) = delete;
    Watcher& operator=(const Watcher&) = delete;

   private:
    std::atomic<bool> stop_{false};
    std::thread thread_;
};

PoolOptions options() {
    PoolOptions chosen = small_pool();
    chosen.chunk_bytes = 2 * unit;
    chosen.keep_up_to = unit;
    chosen.store.ring_buffer = unit;
    return chosen;
}

class ThreadTest : public ::testing::TestWithParam<Kind> {
   protected:
    static constexpr int rounds = 20;
};
INSTANTIATE_TEST_SUITE_P(On, ThreadTest, ::testing::Values(on_host, on_cuda, on_cuda_ring, on_acl),
                         ::testing::PrintToStringParamName());

// The host driver's pages are 2 MiB, whatever is asked for.
PoolOptions options_for(const Kind& kind) {
    return kind.driver == std::string("host") ? small_pool() : options();
}

TEST_P(ThreadTest, TwoThreadsAllocateWhileOtherTagsStageSleepAndWake) {
    Rig rig(GetParam(), options_for(GetParam()), 256 * MiB, unit);
    const Written weights = rig.write(6 * unit, "weights");
    rig.write(4 * unit, "kv");
    const Watcher watcher(rig);
    Allocator one(rig, "one", false);
    Allocator two(rig, "two", false);
    for (int round = 0; round < rounds; ++round) {
        if (rig.digests) {
            rig->stage({.bytes_per_second = 0, .piece_bytes = unit / 4});
            if (round % 2 == 0) {
                rig->wait_staged();
            }
        }
        rig->discard({"kv"});
        rig->wake({});
        EXPECT_TRUE(weights.intact());
    }
    while (one.allocated == 0 || two.allocated == 0) {
        std::this_thread::yield();
    }
    one.stop();
    two.stop();
    EXPECT_EQ(one.refused + two.refused, 0U) << "their tags never moved";
    EXPECT_EQ(rig.tag("one").segments + rig.tag("two").segments, 0U);
    EXPECT_EQ(rig.mapped(), weights.bytes + rig.tag("kv").bytes);
}

TEST_P(ThreadTest, TwoThreadsAllocateAndFreeUnderTagsThatSleepAndWake) {
    Rig rig(GetParam(), options_for(GetParam()), 256 * MiB, unit);
    Written weights = rig.write(6 * unit, "weights");
    const Watcher watcher(rig);
    Allocator one(rig, "one", true);
    Allocator two(rig, "kv_cache", true);
    for (int round = 0; round < rounds; ++round) {
        if (rig.digests && round % 3 == 0) {
            rig->stage({.bytes_per_second = 0, .piece_bytes = unit / 4});
        }
        rig->sleep(1 + round % 2);
        rig->wake({});
        if (round % 2 == 0) {
            EXPECT_TRUE(weights.intact());
        } else {
            rig.rewrite(weights);  // level 2 dropped it
        }
    }
    one.stop();
    two.stop();
    EXPECT_EQ(rig.mapped(), weights.bytes);
    EXPECT_EQ(rig->stats().counters.failed_releases, 0U);
}

TEST_P(ThreadTest, ManyThreadsAskForTransitionsAndEachIsAnswered) {
    Rig rig(GetParam(), options_for(GetParam()), 256 * MiB, unit);
    const Written weights = rig.write(6 * unit, "weights");
    const Written runtime = rig.write(2 * unit, "runtime");
    {
        std::vector<std::jthread> askers;
        for (int asker = 0; asker < 4; ++asker) {
            askers.emplace_back([&rig, asker] {
                for (int round = 0; round < rounds / 2; ++round) {
                    if ((asker + round) % 2 == 0) {
                        rig->sleep(1);
                    } else {
                        rig->wake({});
                    }
                    rig->mark_dirty({"runtime"});
                    rig->release_backups({"weights"});
                }
            });
        }
    }
    rig->wake({});
    EXPECT_TRUE(weights.intact());
    EXPECT_TRUE(runtime.intact());
}

}  // namespace
}  // namespace dormouse
