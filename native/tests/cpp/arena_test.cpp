#include "stores/arena.hpp"

#include <gtest/gtest.h>

#include <array>
#include <iostream>
#include <random>

#include "address_space.hpp"
#include "support/unruly_driver.hpp"

namespace dormouse {
namespace {

constexpr std::size_t mib = std::size_t{1} << 20;
constexpr std::size_t gib = std::size_t{1} << 30;

class ArenaTest : public ::testing::Test {
   protected:
    std::byte* book(std::size_t bytes) { return arena.book(std::array{bytes})[0]; }
    Faults faults;
    UnrulyHost host{faults};
    Arena arena{host};
};

TEST_F(ArenaTest, BooksSideBySideWithoutRoundingBeyondAPage) {
    const auto places = arena.book(std::array{2 * mib, std::size_t{5000}, 4 * mib});
    EXPECT_EQ(places[1], places[0] + 2 * mib);
    EXPECT_EQ(places[2], places[1] + whole_pages(5000));
    EXPECT_LT(whole_pages(5000), 5000 + 65536u);
    EXPECT_EQ(whole_pages(2 * mib), 2 * mib);
}

TEST_F(ArenaTest, WhatWasFreedIsUsedAgainAndNeighboursBecomeOne) {
    const auto places = arena.book(std::array{2 * mib, 4 * mib, 6 * mib, 2 * mib});
    arena.free(places[0]);
    arena.free(places[2]);
    arena.free(places[1]);  // joins both sides
    EXPECT_EQ(book(12 * mib), places[0]);
    arena.free(places[0]);
    EXPECT_EQ(book(2 * mib), places[0]);
    EXPECT_EQ(faults.calls("host_reserve"), 1u);
}

TEST_F(ArenaTest, GrowsByOneReservationThatHoldsAllThatIsAskedFor) {
    arena.book(std::array{gib, gib, gib});
    EXPECT_EQ(faults.calls("host_reserve"), 1u);
    book(2 * mib);
    EXPECT_EQ(faults.calls("host_reserve"), 2u);
    arena.book(std::array{gib, gib});
    EXPECT_EQ(faults.calls("host_reserve"), 2u) << "a region is as large as all before it";
}

TEST_F(ArenaTest, TakesWhatIsNeededWhenAddressSpaceIsScarce) {
    faults.fail("host_reserve", 1);
    EXPECT_NE(book(2 * mib), nullptr);
    EXPECT_EQ(host.address_space, 2 * mib);
}

TEST_F(ArenaTest, BooksAllOrNothing) {
    std::byte* first = book(gib);  // the first region is full now
    faults.fail("host_reserve", 1, 2);
    EXPECT_THROW(arena.book(std::array{2 * mib}), host_out_of_memory);
    arena.free(first);
    faults.fail("host_reserve", 1, 2);
    EXPECT_THROW(arena.book(std::array{512 * mib, gib}), host_out_of_memory);
    EXPECT_EQ(book(gib), first) << "the half that was booked has been given back";
}

TEST_F(ArenaTest, GivesAllAddressSpaceBackInTheEnd) {
    {
        Arena other(host);
        other.book(std::array{gib, gib});
        other.book(std::array{4 * gib});
        EXPECT_GE(host.address_space, 6 * gib);
    }
    EXPECT_EQ(host.address_space, 0u);
}

TEST_F(ArenaTest, RandomBookingsNeverOverlapAndAllComesBack) {
    const unsigned seed = std::random_device{}();
    std::cout << "seed " << seed << "\n";
    std::mt19937 random(seed);
    std::map<std::byte*, std::size_t> live;
    for (int step = 0; step < 4000; ++step) {
        if (random() % 5 < 3 && live.size() < 60) {
            const std::size_t bytes = 1 + random() % (40 * mib);
            std::byte* place = book(bytes);
            const auto next = live.lower_bound(place);
            ASSERT_TRUE(next == live.end() || place + whole_pages(bytes) <= next->first);
            ASSERT_TRUE(next == live.begin() || std::prev(next)->first + std::prev(next)->second <= place);
            live[place] = whole_pages(bytes);
        } else if (!live.empty()) {
            const auto it = std::next(live.begin(), static_cast<long>(random() % live.size()));
            arena.free(it->first);
            live.erase(it);
        }
    }
    for (const auto& [place, bytes] : live) {
        arena.free(place);
    }
    const unsigned reservations = faults.calls("host_reserve");
    book(gib);  // the smallest region is whole again
    EXPECT_EQ(faults.calls("host_reserve"), reservations);
}

}  // namespace
}  // namespace dormouse
