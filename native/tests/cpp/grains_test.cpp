// A chunk that changes again and again: what is copied of it, and that all of it comes back.
#include "grains.hpp"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "dormouse/error.hpp"
#include "support/rig.hpp"

namespace dormouse {
namespace {

using namespace dormouse::testing;

using Digests = std::vector<std::uint64_t>;

TEST(Grains, CoverAChunkWithoutGapsAndTheLastIsWhatIsLeft) {
    const std::vector<Range> grains = grains_of({1000, 25}, 10);
    ASSERT_EQ(grains.size(), 3U);
    EXPECT_EQ(grains[0].address, 1000U);
    EXPECT_EQ(grains[1].address, 1010U);
    EXPECT_EQ(grains[2].address, 1020U);
    EXPECT_EQ(grains[0].bytes, 10U);
    EXPECT_EQ(grains[2].bytes, 5U);
}

TEST(Grains, NeighboursThatChangedAreOneStretch) {
    EXPECT_EQ(to_copy(45, 10, Digests{1, 2, 3, 4, 5}, Digests{1, 0, 0, 4, 0}),
              (std::vector<Stretch>{{10, 20}, {40, 5}}));
}

TEST(Grains, NothingIsCopiedOfWhatIsTheSame) {
    EXPECT_TRUE(to_copy(20, 10, Digests{1, 2}, Digests{1, 2}).empty());
}

TEST(Grains, EverythingIsCopiedWhereTheGrainsOfEitherAreNotKnown) {
    const std::vector<Stretch> everything{{0, 20}};
    EXPECT_EQ(to_copy(20, 10, {}, Digests{1, 2}), everything);
    EXPECT_EQ(to_copy(20, 10, Digests{1, 2}, {}), everything);
    EXPECT_EQ(to_copy(20, 10, {}, {}), everything);
}

class GrainsTest : public ::testing::TestWithParam<Kind> {
   protected:
    GrainsTest() : rig(GetParam()), segment(rig.write(10 * MiB, "runtime")) {}

    void change(std::size_t offset) {
        flip(segment.address + offset);
        segment.digest = digest_at(segment.address, segment.bytes);
    }
    // A sleep and a wake, after which every byte must be right.
    Transition cycle() {
        const Transition slept = rig->sleep(1);
        rig->wake({});
        EXPECT_TRUE(segment.intact());
        return slept;
    }
    // Chunks of 4, 4 and 2 MiB; the second has been changed before.
    void learn() {
        cycle();
        change(5 * MiB);
        EXPECT_EQ(cycle().copied_bytes, 4 * MiB) << "what of it changed is not known the first time";
    }

    Rig rig;
    Written segment;
};

TEST_P(GrainsTest, AChunkThatChangesAgainIsCopiedWhereItChanged) {
    learn();
    change(6 * MiB + 77);
    const Transition slept = cycle();
    EXPECT_EQ(slept.copied_bytes, MiB);
    EXPECT_EQ(slept.mismatched_bytes, 4 * MiB);
    EXPECT_EQ(slept.clean_bytes, 9 * MiB) << "what needed no copy, in whichever chunk";
    EXPECT_EQ(cycle().copied_bytes, 0U);
}

TEST_P(GrainsTest, PlacesFarApartAreCopiedAndNothingBetween) {
    learn();
    change(4 * MiB);
    change(8 * MiB - 1);
    EXPECT_EQ(cycle().copied_bytes, 2 * MiB);
}

TEST_P(GrainsTest, EachChangeIsComparedWithTheOneBefore) {
    learn();
    for (const std::size_t offset : {4 * MiB, 5 * MiB, 4 * MiB, 7 * MiB}) {
        change(offset);
        EXPECT_EQ(cycle().copied_bytes, MiB) << offset;
    }
}

TEST_P(GrainsTest, WhatIsMarkedDirtyIsCopiedWholeAndForgotten) {
    learn();
    change(4 * MiB);
    rig->mark_dirty({"runtime"});
    EXPECT_EQ(cycle().copied_bytes, 10 * MiB);
    change(4 * MiB);
    EXPECT_EQ(cycle().copied_bytes, 4 * MiB);
}

TEST_P(GrainsTest, AChunkThatWasStagedAnewIsCopiedWhole) {
    learn();
    change(4 * MiB);
    rig->stage({.bytes_per_second = 0, .piece_bytes = MiB});
    rig->wait_staged();
    EXPECT_EQ(cycle().copied_bytes, 0U);
    change(4 * MiB);
    EXPECT_EQ(cycle().copied_bytes, 4 * MiB);
}

// A copy that failed half way has left a backup of two times.
TEST_P(GrainsTest, AfterACopyThatFailedAllOfTheChunkIsCopied) {
    learn();
    change(4 * MiB);
    rig.steering->before([](std::string_view call) {
        if (call == "copy_to_host") {
            throw driver_error(call, 999, "broken");
        }
    });
    EXPECT_THROW(rig->sleep(1), driver_error);
    rig.steering->before({});
    EXPECT_TRUE(segment.intact());
    EXPECT_EQ(cycle().copied_bytes, 4 * MiB);
}

// The digest of the chunk comes first; what is written between the two is in the copy, or found by the next sleep.
TEST_P(GrainsTest, AWriteBetweenTheTwoDigestsIsNotLost) {
    learn();
    change(4 * MiB);
    int digests = 0;
    rig.steering->before([&](std::string_view call) {
        if (call == "digest" && ++digests == 2) {
            change(7 * MiB);
        }
    });
    EXPECT_EQ(cycle().copied_bytes, 2 * MiB);
    EXPECT_EQ(digests, 2);
    rig.steering->before({});
    EXPECT_EQ(cycle().copied_bytes, 0U) << "the chunk's digest is an old one, and its grains say that nothing changed";
    EXPECT_EQ(cycle().mismatched_bytes, 0U);
}

INSTANTIATE_TEST_SUITE_P(OnDevicesThatDigest, GrainsTest, ::testing::Values(on_host, on_cuda, on_cuda_ring),
                         ::testing::PrintToStringParamName());

TEST(GrainBytes, ThatAreNoPagesAreRefused) {
    for (const std::size_t bytes : {std::size_t{0}, std::size_t{1000}, 4 * MiB + 1}) {
        PoolOptions options = small_pool();
        options.grain_bytes = bytes;
        try {
            const Rig rig(on_host, options);
            FAIL() << bytes << " was taken";
        } catch (const invalid_argument& refusal) {
            EXPECT_NE(std::string(refusal.what()).find("multiple of a page"), std::string::npos) << refusal.what();
        }
    }
}

}  // namespace
}  // namespace dormouse
