// What a pool promises about memory, content and states, on every kind of device that can be had without one.
#include "dormouse/pool.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "dormouse/error.hpp"
#include "support/rig.hpp"

namespace dormouse {
namespace {

using namespace dormouse::testing;

class PoolTest : public ::testing::TestWithParam<Kind> {};
INSTANTIATE_TEST_SUITE_P(On, PoolTest, ::testing::Values(on_host, on_cuda, on_cuda_ring, on_acl, on_acl_ring),
                         ::testing::PrintToStringParamName());

// ── malloc and free ─────────────────────────────────────────────────────────────────────────────────────

TEST_P(PoolTest, MallocRoundsUpToTheGranularityAndMapsAllOfIt) {
    Rig rig(GetParam());
    std::size_t sum = 0;
    for (const std::size_t bytes : {std::size_t{1}, 2 * MiB - 1, 2 * MiB, 2 * MiB + 1, 9 * MiB}) {
        const Written segment = rig.write(bytes, "weights");
        EXPECT_EQ(segment.bytes, (bytes + 2 * MiB - 1) / (2 * MiB) * (2 * MiB));
        EXPECT_EQ(segment.address % (2 * MiB), 0U);
        sum += segment.bytes;
        EXPECT_EQ(rig.mapped(), sum);
    }
    EXPECT_EQ(rig.tag("weights").segments, 5U);
    EXPECT_EQ(rig.tag("weights").bytes, sum);
}

TEST_P(PoolTest, FreeGivesMemoryAndAddressesBack) {
    Rig rig(GetParam());
    const std::size_t before = rig->stats().memory.free;
    const Written a = rig.write(6 * MiB, "weights");
    const Written b = rig.write(2 * MiB, "weights");
    rig->free(a.address);
    EXPECT_EQ(rig.mapped(), b.bytes);
    EXPECT_TRUE(b.intact());
    rig->free(b.address);
    EXPECT_EQ(rig.mapped(), 0U);
    EXPECT_EQ(rig->stats().memory.free, before);
    EXPECT_EQ(rig.tag("weights").segments, 0U);
    if (rig.fake != nullptr) {
        EXPECT_EQ(rig.fake->live("reservations"), 0U);
    }
}

TEST_P(PoolTest, AnAllocationThatDoesNotFitLeavesNothingBehind) {
    Rig rig(GetParam(), small_pool(), 16 * MiB);
    const Written kept = rig.write(8 * MiB, "weights");
    EXPECT_THROW(rig->malloc(64 * MiB, "weights"), out_of_memory);
    EXPECT_THROW(rig->malloc(SIZE_MAX, "weights"), out_of_memory);
    EXPECT_EQ(rig.mapped(), kept.bytes);
    EXPECT_EQ(rig.tag("weights").segments, 1U);
    EXPECT_NO_THROW(rig->free(rig->malloc(4 * MiB, "weights")));
    EXPECT_TRUE(kept.intact());
}

TEST_P(PoolTest, AFreedAddressIsForgottenAndItsBackupToo) {
    Rig rig(GetParam());
    const Written gone = rig.write(6 * MiB, "weights");
    const Written stays = rig.write(2 * MiB, "weights");
    rig->sleep(1);
    const unsigned long reservations = rig.fake != nullptr ? rig.fake->live("reservations") : 0;
    rig->free(gone.address);
    EXPECT_EQ(rig.tag("weights").backup_bytes, stays.bytes);
    EXPECT_EQ(rig->stats().store.reserved, stays.bytes);
    if (rig.fake != nullptr) {
        EXPECT_EQ(rig.fake->live("reservations"), reservations - 1);
    }
    EXPECT_THROW(rig->free(gone.address), invalid_argument);
    rig->wake({});
    EXPECT_TRUE(stays.intact());
    EXPECT_EQ(rig.mapped(), stays.bytes);
}

// ── level 1 ─────────────────────────────────────────────────────────────────────────────────────────────

TEST_P(PoolTest, ContentSurvivesLevelOneAtTheSameAddressGapsIncluded) {
    Rig rig(GetParam());
    std::vector<Written> all;
    for (const char* tag : {"weights", "runtime", "default"}) {
        for (const std::size_t bytes : {std::size_t{1}, 2 * MiB + 4096, 11 * MiB + 12345}) {
            all.push_back(rig.write(bytes, tag));
        }
    }
    const std::size_t mapped = rig.mapped();
    const std::size_t free = rig->stats().memory.free;
    const Transition sleep = rig->sleep(1);
    EXPECT_EQ(sleep.kind, "sleep");
    EXPECT_EQ(sleep.copied_bytes, mapped);
    EXPECT_EQ(rig.mapped(), 0U);
    if (rig.fake != nullptr) {
        EXPECT_EQ(rig.fake->live("mappings"), 0U);
        EXPECT_EQ(rig->stats().memory.free, free + mapped);
    }
    const Transition wake = rig->wake({});
    EXPECT_EQ(wake.copied_bytes, mapped);
    EXPECT_EQ(rig.mapped(), mapped);
    for (const Written& segment : all) {
        EXPECT_EQ(rig->size_of(segment.address), segment.bytes);
        EXPECT_TRUE(segment.intact());
    }
}

TEST_P(PoolTest, TheKvCacheAndScratchMemoryAreDroppedAtLevelOne) {
    Rig rig(GetParam());
    rig.write(6 * MiB, "kv_cache");
    rig.write(6 * MiB, "workspace");
    const Transition sleep = rig->sleep(1);
    EXPECT_EQ(sleep.copied_bytes, 0U);
    EXPECT_EQ(rig.mapped(), 0U);
    EXPECT_EQ(rig.state("kv_cache"), TagState::discarded);
    EXPECT_EQ(rig.state("workspace"), TagState::discarded);
    rig->wake({});
    EXPECT_EQ(rig.mapped(), 12 * MiB);
}

TEST_P(PoolTest, ASecondSleepOfUnchangedBytesCopiesNothing) {
    Rig rig(GetParam());
    const Written segment = rig.write(10 * MiB, "weights");
    rig->sleep(1);
    rig->wake({});
    const Transition again = rig->sleep(1);
    EXPECT_EQ(again.clean_bytes, rig.digests ? segment.bytes : 0U);
    EXPECT_EQ(again.copied_bytes, rig.digests ? 0U : segment.bytes) << "without digests no backup may be trusted";
    rig->wake({});
    EXPECT_TRUE(segment.intact());
}

TEST_P(PoolTest, AWriterThatNobodyHookedIsFoundAndItsBytesAreCopiedAgain) {
    Rig rig(GetParam());
    Written segment = rig.write(10 * MiB, "weights");
    rig->sleep(1);
    rig->wake({});
    flip(segment.address + 5 * MiB + 77);
    segment.digest = digest_at(segment.address, segment.bytes);
    const Transition again = rig->sleep(1);
    if (rig.digests) {
        EXPECT_EQ(again.mismatched_bytes, 4 * MiB) << "the one chunk that holds the byte";
        EXPECT_EQ(again.copied_bytes, 4 * MiB);
        EXPECT_EQ(again.clean_bytes, 6 * MiB);
        EXPECT_EQ(rig->stats().counters.digest_mismatches, 1U);
    } else {
        EXPECT_EQ(again.copied_bytes, segment.bytes);
    }
    rig->wake({});
    EXPECT_TRUE(segment.intact());
}

TEST_P(PoolTest, WhatIsMarkedDirtyIsCopiedWithoutBeingAMismatch) {
    Rig rig(GetParam());
    rig.write(4 * MiB, "weights");
    rig.write(6 * MiB, "runtime");
    rig->sleep(1);
    rig->wake({});
    rig->mark_dirty({"weights"});
    Transition again = rig->sleep(1);
    EXPECT_EQ(again.copied_bytes, rig.digests ? 4 * MiB : 10 * MiB);
    EXPECT_EQ(again.mismatched_bytes, 0U);
    rig->mark_dirty({});  // asleep, and all
    rig->wake({});
    again = rig->sleep(1);
    EXPECT_EQ(again.copied_bytes, 10 * MiB);
    EXPECT_EQ(again.mismatched_bytes, 0U);
}

// ── level 2 and parts ───────────────────────────────────────────────────────────────────────────────────

TEST_P(PoolTest, LevelTwoKeepsRuntimeGraphsSmallBlocksOfWeightsAndSmallKvSegments) {
    Rig rig(GetParam());
    const std::vector<Written> kept{rig.write(6 * MiB, "runtime"), rig.write(2 * MiB, "cudagraph"),
                                    rig.write(2 * MiB, "weights"), rig.write(4 * MiB, "kv_cache")};
    rig.write(4 * MiB, "weights");   // larger than torch's smallest block
    rig.write(6 * MiB, "kv_cache");  // larger than keep_up_to
    rig.write(2 * MiB, "workspace");
    const Transition sleep = rig->sleep(2);
    EXPECT_EQ(sleep.copied_bytes, 14 * MiB);
    EXPECT_EQ(rig.mapped(), 0U);
    EXPECT_EQ(rig.state("runtime"), TagState::offloaded);
    EXPECT_EQ(rig.state("weights"), TagState::discarded);
    EXPECT_EQ(rig.tag("weights").kept_bytes, 2 * MiB);
    EXPECT_EQ(rig.tag("weights").backup_bytes, 2 * MiB);
    EXPECT_EQ(rig.tag("kv_cache").kept_bytes, 4 * MiB);
    EXPECT_EQ(rig.tag("workspace").kept_bytes, 0U);
    rig->wake({});
    for (const Written& segment : kept) {
        EXPECT_TRUE(segment.intact());
    }
    EXPECT_EQ(rig.mapped(), 26 * MiB);
}

TEST_P(PoolTest, NothingIsKeptOfADiscardedTagWhereNothingShouldBe) {
    PoolOptions options = small_pool();
    options.keep_up_to = 0;
    Rig rig(GetParam(), options);
    rig.write(2 * MiB, "weights");
    rig.write(2 * MiB, "kv_cache");
    EXPECT_EQ(rig->sleep(2).copied_bytes, 0U);
    EXPECT_EQ(rig->stats().store.reserved, 0U);
}

TEST_P(PoolTest, TagsWakeInAnyOrder) {
    Rig rig(GetParam());
    std::vector<std::string> order{"default", "runtime", "weights"};
    std::vector<Written> all;
    for (const std::string& tag : order) {
        all.push_back(rig.write(2 * MiB, tag));
    }
    do {
        rig->sleep(1);
        std::size_t mapped = 0;
        for (const std::string& tag : order) {
            rig->wake({tag});
            mapped += 2 * MiB;
            EXPECT_EQ(rig.mapped(), mapped);
            EXPECT_EQ(rig.state(tag), TagState::resident);
        }
        for (const Written& segment : all) {
            EXPECT_TRUE(segment.intact());
        }
    } while (std::next_permutation(order.begin(), order.end()));
}

TEST_P(PoolTest, ASleepByListOffloadsWhatItNamesAndDropsTheRest) {
    Rig rig(GetParam());
    const Written kv = rig.write(6 * MiB, "kv_cache");
    rig.write(6 * MiB, "weights");
    rig->sleep(std::vector<std::string>{"kv_cache"});
    EXPECT_EQ(rig.state("kv_cache"), TagState::offloaded);
    EXPECT_EQ(rig.state("weights"), TagState::discarded);
    EXPECT_EQ(rig->stats().store.reserved, kv.bytes);
    rig->wake({"kv_cache"});
    EXPECT_TRUE(kv.intact());
    EXPECT_EQ(rig.mapped(), kv.bytes);
}

TEST_P(PoolTest, ADiscardDropsMemoryAndBackupOfResidentAndOfOffloadedTags) {
    Rig rig(GetParam());
    rig.write(6 * MiB, "weights");
    const Written small = rig.write(2 * MiB, "weights");
    const Written other = rig.write(4 * MiB, "runtime");
    EXPECT_EQ(rig->discard({"weights"}).kind, "discard");
    EXPECT_EQ(rig.mapped(), other.bytes);
    EXPECT_TRUE(other.intact());
    rig->wake({"weights"});
    EXPECT_TRUE(small.intact());
    rig->sleep(1);
    EXPECT_EQ(rig->stats().store.reserved, 12 * MiB);
    rig->discard({"weights", "runtime"});
    EXPECT_EQ(rig->stats().store.reserved, small.bytes);
    EXPECT_EQ(rig.state("runtime"), TagState::discarded);
    rig->wake({});
    EXPECT_TRUE(small.intact());
    EXPECT_EQ(rig->stats().counters.discards, 2U);
}

TEST_P(PoolTest, ASleeperSleepsDeeperWithoutWaking) {
    Rig rig(GetParam());
    rig.write(6 * MiB, "weights");
    const Written small = rig.write(1, "weights");
    const Written runtime = rig.write(6 * MiB, "runtime");
    rig->sleep(1);
    const Transition deeper = rig->sleep(2);
    EXPECT_EQ(deeper.copied_bytes, 0U);
    EXPECT_EQ(rig.state("weights"), TagState::discarded);
    EXPECT_EQ(rig->stats().store.reserved, small.bytes + runtime.bytes);
    rig->wake({});
    EXPECT_TRUE(small.intact());
    EXPECT_TRUE(runtime.intact());
}

// ── repeats and refusals ────────────────────────────────────────────────────────────────────────────────

TEST_P(PoolTest, RepeatedRequestsAreAnsweredWithoutDoingAnything) {
    Rig rig(GetParam());
    const Written segment = rig.write(6 * MiB, "weights");
    rig.write(6 * MiB, "kv_cache");
    EXPECT_EQ(rig->wake({}).copied_bytes, 0U);
    rig->sleep(1);
    const PoolStats asleep = rig->stats();
    EXPECT_EQ(rig->sleep(1).copied_bytes, 0U);
    rig->discard({"kv_cache"});
    EXPECT_EQ(rig->stats().counters.sleeps, asleep.counters.sleeps);
    EXPECT_EQ(rig->stats().counters.discards, 0U);
    rig->wake({});
    rig->wake({});
    rig->wake({"weights"});
    EXPECT_EQ(rig->stats().counters.wakes, 1U);
    EXPECT_TRUE(segment.intact());
}

TEST_P(PoolTest, WhatMakesNoSenseIsRefusedByTypeAndChangesNothing) {
    Rig rig(GetParam());
    const Written segment = rig.write(6 * MiB, "weights");
    EXPECT_THROW(rig->wake({"weight"}), invalid_argument);
    EXPECT_THROW(rig->discard({"weights", "weight"}), invalid_argument);
    EXPECT_THROW(rig->sleep(std::vector<std::string>{"weight"}), invalid_argument);
    EXPECT_THROW(rig->mark_dirty({"weight"}), invalid_argument);
    EXPECT_THROW(rig->release_backups({"weight"}), invalid_argument);
    EXPECT_THROW(rig->sleep(0), invalid_argument);
    EXPECT_THROW(rig->sleep(3), invalid_argument);
    EXPECT_THROW(rig->malloc(0, "weights"), invalid_argument);
    EXPECT_THROW(rig->malloc(1, ""), invalid_argument);
    EXPECT_THROW(rig->free(segment.address + 2 * MiB), invalid_argument);
    EXPECT_THROW(rig->free(0), invalid_argument);
    EXPECT_THROW(rig->size_of(segment.address + 1), invalid_argument);
    EXPECT_THROW(rig->stage({.bytes_per_second = 0, .piece_bytes = 0}), invalid_argument);
    EXPECT_THROW(rig->stage({.bytes_per_second = 0, .piece_bytes = 4097}), invalid_argument);
    EXPECT_EQ(rig.state("weights"), TagState::resident);
    EXPECT_EQ(rig.mapped(), segment.bytes);
    EXPECT_TRUE(segment.intact());
}

TEST_P(PoolTest, ATagThatSleepsTakesNoAllocation) {
    Rig rig(GetParam());
    rig.write(6 * MiB, "weights");
    rig->sleep(1);
    EXPECT_THROW(rig->malloc(1, "weights"), illegal_state);
    rig->discard({"weights"});
    EXPECT_THROW(rig->malloc(1, "weights"), illegal_state);
    EXPECT_NO_THROW(rig->malloc(1, "other"));
    EXPECT_EQ(rig.tag("weights").segments, 1U);
}

TEST_P(PoolTest, AnOffloadOfADiscardedTagIsRefusedAndNoOtherTagMoves) {
    Rig rig(GetParam());
    rig.write(6 * MiB, "weights");
    const Written other = rig.write(2 * MiB, "runtime");
    rig->discard({"weights"});
    EXPECT_THROW(rig->sleep(1), illegal_state);
    EXPECT_EQ(rig.state("runtime"), TagState::resident);
    EXPECT_TRUE(other.intact());
    rig->wake({"weights"});
    EXPECT_NO_THROW(rig->sleep(1));
}

TEST_P(PoolTest, AChunkSizeMustFitTheGranularity) {
    for (const std::size_t bytes : {std::size_t{0}, MiB, 3 * MiB}) {
        PoolOptions options = small_pool();
        options.chunk_bytes = bytes;
        EXPECT_THROW(Rig(GetParam(), options), invalid_argument) << bytes;
    }
}

// ── what a backup costs ─────────────────────────────────────────────────────────────────────────────────

TEST_P(PoolTest, BackupsGoAfterTheWakeWhereTheyAreNotRetained) {
    PoolOptions options = small_pool();
    options.retain = Retain::release;
    Rig rig(GetParam(), options);
    const Written segment = rig.write(6 * MiB, "weights");
    rig->sleep(1);
    EXPECT_EQ(rig->stats().store.reserved, segment.bytes);
    rig->wake({});
    EXPECT_EQ(rig->stats().store.reserved, 0U);
    EXPECT_EQ(rig.tag("weights").backup_bytes, 0U);
    EXPECT_EQ(rig->sleep(1).copied_bytes, segment.bytes);
    rig->wake({});
    EXPECT_TRUE(segment.intact());
}

TEST_P(PoolTest, BackupsOfResidentTagsCanBeGivenBackAndThoseOfSleepersNot) {
    Rig rig(GetParam());
    const Written weights = rig.write(6 * MiB, "weights");
    const Written runtime = rig.write(2 * MiB, "runtime");
    rig->sleep(1);
    rig->wake({"weights"});
    EXPECT_EQ(rig->release_backups({"runtime"}), 0U);
    EXPECT_EQ(rig->release_backups({}), weights.bytes);
    EXPECT_EQ(rig->release_backups({}), 0U);
    EXPECT_EQ(rig->stats().store.reserved, runtime.bytes);
    rig->wake({});
    EXPECT_TRUE(weights.intact());
    EXPECT_TRUE(runtime.intact());
    EXPECT_EQ(rig->sleep(1).copied_bytes, rig.digests ? weights.bytes : weights.bytes + runtime.bytes);
}

TEST_P(PoolTest, TheFiguresAreExactInEveryState) {
    Rig rig(GetParam());
    rig.write(6 * MiB, "weights");
    rig.write(10 * MiB, "kv_cache");
    rig.write(2 * MiB, "kv_cache");
    const auto expect = [&](const char* name, TagState state, std::size_t mapped, std::size_t backup,
                            std::size_t kept) {
        const TagStats tag = rig.tag(name);
        EXPECT_EQ(to_string(tag.state), std::string(to_string(state))) << name;
        EXPECT_EQ(tag.mapped_bytes, mapped) << name;
        EXPECT_EQ(tag.backup_bytes, backup) << name;
        EXPECT_EQ(tag.kept_bytes, kept) << name;
    };
    expect("weights", TagState::resident, 6 * MiB, 0, 0);
    rig->sleep(1);
    expect("weights", TagState::offloaded, 0, 6 * MiB, 0);
    expect("kv_cache", TagState::discarded, 0, 2 * MiB, 2 * MiB);
    rig->wake({"kv_cache"});
    expect("weights", TagState::offloaded, 0, 6 * MiB, 0);
    expect("kv_cache", TagState::resident, 12 * MiB, 2 * MiB, 0);
    rig->wake({});
    expect("weights", TagState::resident, 6 * MiB, 6 * MiB, 0);
    rig->sleep(2);
    expect("weights", TagState::discarded, 0, 0, 0);
    const PoolStats stats = rig->stats();
    EXPECT_EQ(stats.tags.at("weights").segments, 1U);
    EXPECT_EQ(stats.tags.at("kv_cache").segments, 2U);
    EXPECT_EQ(stats.tags.at("kv_cache").bytes, 12 * MiB);
    EXPECT_EQ(stats.store.reserved, 2 * MiB);
    EXPECT_EQ(stats.counters.sleeps, 2U);
    EXPECT_EQ(stats.counters.wakes, 2U);
    EXPECT_EQ(stats.counters.rollbacks, 0U);
    ASSERT_TRUE(stats.last.has_value());
    EXPECT_EQ(stats.last->kind, "sleep");
    EXPECT_TRUE(stats.last->error.empty());
    double phases = 0;
    for (const auto& [name, seconds] : stats.last->phases) {
        phases += seconds;
    }
    EXPECT_LE(phases, stats.last->seconds);
    EXPECT_GT(phases, 0);
}

}  // namespace
}  // namespace dormouse
