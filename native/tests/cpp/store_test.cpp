// What every kind of store promises when all goes well, and what it refuses. Failures: store_failure_test.cpp.
#include <gtest/gtest.h>

#include <array>
#include <filesystem>
#include <future>
#include <iterator>
#include <thread>

#include "support/store_bench.hpp"

namespace dormouse {
namespace {

constexpr std::size_t mib = StoreBench::mib;

std::size_t threads_of_process() {
    const std::filesystem::directory_iterator tasks("/proc/self/task");
    return static_cast<std::size_t>(std::distance(begin(tasks), end(tasks)));
}

class EveryKind : public ::testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Kinds, EveryKind, ::testing::Values("registered", "ring", "auto"),
                         [](const auto& kind) { return std::string(kind.param); });

TEST_P(EveryKind, ContentComesBackAsItWas) {
    StoreBench bench(GetParam());
    DeviceBytes device(bench.driver, 24 * mib);
    const auto slots = bench.store().reserve(std::vector<std::size_t>(6, 4 * mib));
    for (std::uint64_t round = 1; round <= 3; ++round) {
        device.fill(round);
        bench.offload(device, slots);
        EXPECT_TRUE(device.holds(round));
        device.fill(99);
        bench.restore(device, slots);
        EXPECT_TRUE(device.holds(round)) << "round " << round;
    }
    bench.expect_nothing_left();
}

TEST_P(EveryKind, PiecesLieAnywhereInASlotAndAcrossBlocks) {
    StoreBench bench(GetParam());
    DeviceBytes device(bench.driver, 6 * mib);
    device.fill(1);
    const Slot slot = bench.book(block_bytes + 4 * mib);
    // The end of the first block and the start of the second, in pieces of odd sizes and in no order.
    const std::size_t begin = block_bytes - 3 * mib + 8;
    const std::array cuts{std::size_t{0}, std::size_t{4096}, 3 * mib - 8, 3 * mib + 16, 6 * mib - 8};
    for (const bool out : {true, false}) {
        const auto transfer = out ? bench.store().offload(Priority::normal) : bench.store().restore();
        for (std::size_t i = cuts.size() - 1; i > 0; --i) {
            transfer->add({device.address() + cuts[i - 1], cuts[i] - cuts[i - 1], slot, begin + cuts[i - 1]});
        }
        transfer->finish();
        if (out) {
            device.fill(2);
        }
    }
    EXPECT_TRUE(device.holds(1, 0, 6 * mib - 8));
    EXPECT_TRUE(device.holds(2, 6 * mib - 8)) << "bytes of no piece stay what they are";
    // One piece over both blocks at once.
    for (const bool out : {true, false}) {
        device.fill(out ? 4 : 5);
        const auto transfer = out ? bench.store().offload(Priority::low) : bench.store().restore();
        transfer->add({device.address(), 6 * mib - 8, slot, begin});
        transfer->finish();
    }
    EXPECT_TRUE(device.holds(4, 0, 6 * mib - 8));
    bench.expect_nothing_left();
}

TEST_P(EveryKind, AnOffloadToPreparedSlotsOnlyCopies) {
    StoreBench bench(GetParam());
    DeviceBytes device(bench.driver, 8 * mib);
    const auto slots = bench.store().reserve(std::vector{4 * mib, 4 * mib});
    for (const Slot slot : slots) {
        bench.store().prepare(slot);
        bench.store().prepare(slot);
    }
    const unsigned commits = bench.driver.faults.calls("commit");
    const unsigned pins = bench.driver.faults.calls("pin");
    const std::size_t pinned = bench.store().stats().pinned;
    bench.offload(device, slots);
    EXPECT_EQ(bench.driver.faults.calls("commit"), commits);
    EXPECT_EQ(bench.driver.faults.calls("pin"), pins);
    EXPECT_EQ(bench.store().stats().pinned, pinned);
}

TEST_P(EveryKind, APrepareThatIsToldToStopKeepsWhatItHasAndCanGoOn) {
    StoreBench bench(GetParam());
    const Slot slot = bench.book(2 * part_bytes + mib);
    std::stop_source stop;
    bench.driver.memory_of_host().before_commit = [&] { stop.request_stop(); };
    bench.store().prepare(slot, stop.get_token());
    EXPECT_EQ(bench.store().stats().committed, part_bytes) << "it stopped behind the part that was under way";
    EXPECT_EQ(bench.driver.faults.calls("pin"), 0U);
    bench.store().prepare(slot, stop.get_token());
    EXPECT_EQ(bench.store().stats().committed, part_bytes);
    bench.store().prepare(slot);
    EXPECT_EQ(bench.store().stats().committed, 2 * part_bytes + mib);
    bench.expect_nothing_left();
}

TEST_P(EveryKind, PartlyPreparedSlotsTransferTogether) {
    StoreBench bench(GetParam());
    DeviceBytes device(bench.driver, 32 * mib);
    device.fill(1);
    const auto slots = bench.store().reserve(std::vector<std::size_t>(8, 4 * mib));
    for (const std::size_t i : {0u, 3u, 7u}) {
        bench.store().prepare(slots[i]);
    }
    bench.offload(device, slots);
    device.fill(2);
    bench.restore(device, slots);
    EXPECT_TRUE(device.holds(1));
}

TEST_P(EveryKind, StatsAreExact) {
    StoreBench bench(GetParam());
    const bool pins = std::string(GetParam()) != "ring";
    DeviceBytes device(bench.driver, 8 * mib);
    const auto slots = bench.store().reserve(std::vector{4 * mib, 4 * mib, 6 * mib});
    StoreStats stats = bench.store().stats();
    EXPECT_EQ(stats.kind, pins ? "registered" : "ring");
    EXPECT_FALSE(stats.reason.empty());
    EXPECT_EQ(stats.reserved, 14 * mib);
    EXPECT_EQ(stats.committed, 0u);
    EXPECT_EQ(stats.pinned, 0u);

    bench.offload(device, std::span(slots).first(2));
    stats = bench.store().stats();
    const std::size_t buffers = pins ? 0 : 3 * 2 * mib;  // three lanes of two
    EXPECT_EQ(stats.committed, 8 * mib);
    EXPECT_EQ(stats.pinned, (pins ? 8 * mib : 0) + buffers);
    EXPECT_EQ(bench.driver.pinned(), stats.pinned);
    EXPECT_EQ(bench.driver.memory_of_host().committed(), stats.committed + buffers);

    bench.store().release(slots[0]);
    bench.store().release(slots[0]);  // not booked any more: nothing to do
    bench.store().drain();
    stats = bench.store().stats();
    EXPECT_EQ(stats.reserved, 10 * mib);
    EXPECT_EQ(stats.committed, 4 * mib);
    EXPECT_EQ(bench.driver.pinned(), stats.pinned);
    EXPECT_EQ(bench.driver.memory_of_host().committed(), stats.committed + buffers);
}

TEST_P(EveryKind, AReleaseDoesNotWaitForTheDriverToUnpin) {
    StoreBench bench(GetParam());
    DeviceBytes device(bench.driver, 4 * mib);
    const Slot slot = bench.book(4 * mib);
    bench.offload(device, std::array{slot});
    const std::size_t committed = bench.store().stats().committed;
    std::promise<void> gate;
    bench.driver.memory_of_host().before_decommit = [passed = gate.get_future().share()] { passed.wait(); };
    bench.store().release(slot);  // would hang if it waited
    EXPECT_EQ(bench.store().stats().reserved, 0u);
    EXPECT_EQ(bench.store().stats().committed, committed) << "held until it is really given back";
    gate.set_value();
    bench.store().drain();
    EXPECT_EQ(bench.store().stats().committed, 0u);
}

TEST_P(EveryKind, ReleasedSlotsAreUsedAgain) {
    StoreBench bench(GetParam());
    DeviceBytes device(bench.driver, 4 * mib);
    for (int round = 0; round < 300; ++round) {  // far more than a region holds
        const Slot slot = bench.book(4 * mib + (round % 2 == 0 ? 16 * mib : 0));
        if (round % 50 == 0) {
            bench.offload(device, std::array{slot});
        }
        bench.store().release(slot);
    }
    EXPECT_EQ(bench.store().stats().reserved, 0u);
    EXPECT_LE(bench.driver.memory_of_host().address_space, std::size_t{1} << 30 | 6 * mib);
    bench.expect_nothing_left();
}

TEST_P(EveryKind, ReserveRefusesWhatTheHostCannotHoldAndBooksNothing) {
    StoreBench bench(GetParam());
    bench.driver.memory_of_host().room = 10 * mib;
    const Slot first = bench.book(6 * mib);
    try {
        bench.store().reserve(std::vector{2 * mib, 4 * mib});
        FAIL() << "6 MiB are booked already and not yet taken";
    } catch (const host_out_of_memory& refusal) {
        EXPECT_EQ(refusal.needed, 12 * mib);
        EXPECT_EQ(refusal.available, 10 * mib);
        EXPECT_NE(std::string(refusal.what()).find("nothing was moved"), std::string::npos);
    }
    EXPECT_EQ(bench.store().stats().reserved, 6 * mib);
    bench.store().prepare(first);  // now it is taken, and no longer counts
    EXPECT_NO_THROW(bench.store().reserve(std::vector{2 * mib, 4 * mib}));

    bench.options.check_host_memory = false;
    ArenaStore careless(bench.driver, bench.options, [] { return unlimited; });
    EXPECT_NO_THROW(careless.reserve(std::vector{64 * mib}));
}

TEST_P(EveryKind, RefusesSizesAndPiecesThatMakeNoSense) {
    StoreBench bench(GetParam());
    DeviceBytes device(bench.driver, 4 * mib);
    EXPECT_TRUE(bench.store().reserve({}).empty());
    EXPECT_THROW(bench.book(0), invalid_argument);
    EXPECT_THROW(bench.book(unlimited), invalid_argument);
    EXPECT_THROW(bench.store().reserve(std::vector<std::size_t>(8, unlimited / 4)), invalid_argument);
    EXPECT_THROW(bench.store().prepare(77), invalid_argument);
    const Slot slot = bench.book(4 * mib);
    EXPECT_THROW(bench.store().restore()->add({device.address(), 4 * mib, slot, 0}), illegal_state);

    const auto transfer = bench.store().offload(Priority::normal);
    EXPECT_THROW(transfer->add({device.address(), 4096, slot + 1, 0}), invalid_argument);
    EXPECT_THROW(transfer->add({device.address(), 4 * mib, slot, 8}), invalid_argument);
    EXPECT_THROW(transfer->add({device.address(), 8, slot, unlimited}), invalid_argument);
    transfer->add({device.address(), 4 * mib, slot, 0});
    transfer->finish();
    transfer->finish();
    EXPECT_THROW(transfer->add({device.address(), 4 * mib, slot, 0}), illegal_state);
    bench.store().release(slot);
    EXPECT_THROW(bench.store().prepare(slot), invalid_argument);
}

TEST_P(EveryKind, AnUnfinishedTransferWaitsAndDropsTheRest) {
    StoreBench bench(GetParam());
    DeviceBytes device(bench.driver, 32 * mib);
    device.fill(1);
    const auto slots = bench.store().reserve(std::vector<std::size_t>(8, 4 * mib));
    for (int round = 0; round < 10; ++round) {
        const auto transfer = bench.store().offload(Priority::normal);
        for (std::size_t i = 0; i < slots.size(); ++i) {
            transfer->add({device.address() + i * 4 * mib, 4 * mib, slots[i], 0});
        }
    }
    EXPECT_EQ(bench.driver.queued(), 0u);
    bench.offload(device, slots);
    device.fill(2);
    {
        const auto transfer = bench.store().restore();
        transfer->add({device.address(), 4 * mib, slots[0], 0});
    }
    EXPECT_EQ(bench.driver.queued(), 0u);
    bench.restore(device, slots);
    EXPECT_TRUE(device.holds(1));
    bench.expect_nothing_left();
}

TEST_P(EveryKind, AReleasedSlotStaysUntilItsTransferIsDone) {
    StoreBench bench(GetParam());
    DeviceBytes device(bench.driver, 8 * mib);
    device.fill(1);
    const auto slots = bench.store().reserve(std::vector{4 * mib, 4 * mib});
    bench.offload(device, slots);
    device.fill(2);
    {
        const auto transfer = bench.store().restore();
        transfer->add({device.address(), 4 * mib, slots[0], 0});
        bench.store().release(slots[0]);
        transfer->finish();
    }
    EXPECT_TRUE(device.holds(1, 0, 4 * mib));
    bench.expect_nothing_left();
}

TEST_P(EveryKind, AReleasedSlotIsTakenDownByTheStoresOwnThreadAlone) {
    StoreBench bench(GetParam());
    const std::thread::id caller = std::this_thread::get_id();
    std::atomic<unsigned> by_caller = 0;
    bench.driver.memory_of_host().before_decommit = [&] {
        by_caller += std::this_thread::get_id() == caller ? 1u : 0u;
    };
    for (int round = 0; round < 500; ++round) {
        const Slot slot = bench.book(4096);
        bench.store().prepare(slot);
        bench.store().release(slot);
        bench.store().drain();
    }
    EXPECT_EQ(by_caller, 0u) << "and so not waited for by drain()";
    bench.driver.memory_of_host().before_decommit = {};
    bench.expect_nothing_left();
}

TEST_P(EveryKind, TransfersRunSideBySideAndLeaveNoThreadBehind) {
    StoreBench bench(GetParam());
    DeviceBytes one(bench.driver, 16 * mib);
    DeviceBytes two(bench.driver, 16 * mib);
    bench.store().release(bench.book(4 * mib));
    bench.store().drain();  // the thread that takes down what is released stays with the store
    const std::size_t threads = threads_of_process();
    const auto cycle = [&bench](DeviceBytes& device, std::uint64_t salt) {
        for (std::uint64_t round = 0; round < 4; ++round) {
            const auto slots = bench.store().reserve(std::vector<std::size_t>(4, 4 * mib));
            device.fill(salt + round);
            bench.offload(device, slots);
            device.fill(0);
            bench.restore(device, slots);
            EXPECT_TRUE(device.holds(salt + round));
            for (const Slot slot : slots) {
                bench.store().release(slot);
            }
        }
    };
    std::thread other([&] { cycle(two, 1000); });
    cycle(one, 2000);
    other.join();
    EXPECT_EQ(threads_of_process(), threads);
    bench.expect_nothing_left();
}

TEST_P(EveryKind, StreamsAndBuffersAreMadeOnceAndKept) {
    StoreBench bench(GetParam());
    DeviceBytes device(bench.driver, 16 * mib);
    const auto slots = bench.store().reserve(std::vector<std::size_t>(4, 4 * mib));
    bench.offload(device, slots);
    const unsigned streams = bench.driver.faults.calls("create_stream");
    const unsigned pins = bench.driver.faults.calls("pin");
    for (int round = 0; round < 5; ++round) {
        bench.restore(device, slots);
        bench.offload(device, slots);
    }
    EXPECT_EQ(bench.driver.faults.calls("create_stream"), streams);
    EXPECT_EQ(bench.driver.faults.calls("pin"), pins);
    EXPECT_EQ(bench.driver.low_streams, 0u);
    bench.store().offload(Priority::low);
    EXPECT_EQ(bench.driver.low_streams, 1u);
}

TEST(Kinds, AnUnknownOneAndAnEmptyBufferAreRefused) {
    UnrulyDriver driver(false);
    StoreOptions options;
    options.kind = "cloud";
    EXPECT_THROW(make_store(driver, options), invalid_argument);
    options.kind = "ring";
    options.ring_buffer = 0;
    EXPECT_THROW(make_store(driver, options), invalid_argument);
}

TEST(Kinds, MakeStoreMakesEachOnThisMachine) {
    UnrulyDriver driver(true);
    for (const char* kind : {"ring", "auto"}) {
        StoreOptions options;
        options.kind = kind;
        EXPECT_FALSE(make_store(driver, options)->stats().kind.empty());
    }
}

TEST(Kinds, RegisteredNeedsADriverThatPins) {
    StoreBench bench("registered");
    bench.driver.pins = false;
    EXPECT_THROW(bench.store(), invalid_argument);
}

TEST(Kinds, RegisteredSaysWhatMemlockLacksAndBooksNothing) {
    StoreBench bench("registered");
    bench.lockable = 65536;
    EXPECT_THROW(bench.store(), host_out_of_memory) << "known when the store is made";
    bench.lockable = 10 * mib;
    const Slot first = bench.book(6 * mib);
    try {
        bench.book(6 * mib);
        FAIL() << "the first slot will be pinned too";
    } catch (const host_out_of_memory& refusal) {
        EXPECT_EQ(refusal.needed, 12 * mib);
        EXPECT_EQ(refusal.available, 10 * mib);
        EXPECT_NE(std::string(refusal.what()).find("RLIMIT_MEMLOCK"), std::string::npos);
    }
    EXPECT_EQ(bench.store().stats().reserved, 6 * mib);
    bench.store().release(first);
    EXPECT_NO_THROW(bench.book(6 * mib));
}

TEST(Kinds, AutoTakesTheRingForWhatMemlockDoesNotAllow) {
    StoreBench bench("auto");
    DeviceBytes device(bench.driver, 16 * mib);
    device.fill(1);
    bench.lockable = 10 * mib;
    std::vector<Slot> slots{bench.book(8 * mib)};
    EXPECT_EQ(bench.store().stats().kind, "registered");
    slots.push_back(bench.book(8 * mib));
    EXPECT_EQ(bench.store().stats().kind, "ring");
    EXPECT_NE(bench.store().stats().reason.find("RLIMIT_MEMLOCK"), std::string::npos);
    bench.offload(device, slots);
    device.fill(2);
    bench.restore(device, slots);
    EXPECT_TRUE(device.holds(1));
    EXPECT_EQ(bench.store().stats().pinned, 8 * mib + 3 * 2 * mib) << "one slot, and the buffers of three lanes";
    bench.expect_nothing_left();
}

TEST(Kinds, AutoTakesTheRingWhereTheDriverCannotPin) {
    StoreBench bench("auto");
    bench.driver.pins = false;
    DeviceBytes device(bench.driver, 8 * mib);
    device.fill(1);
    const std::array slots{bench.book(8 * mib)};
    bench.offload(device, slots);
    device.fill(2);
    bench.restore(device, slots);
    EXPECT_TRUE(device.holds(1));
    EXPECT_EQ(bench.store().stats().kind, "ring");
    EXPECT_EQ(bench.driver.faults.calls("pin"), 0u);
    EXPECT_EQ(bench.driver.faults.calls("host_alloc"), 6u);
    bench.expect_nothing_left();
}

// Eight slots, four threads; touching a slot takes 1 s and copying it 0.25 s. Four slots are ready after 1 s and
// copied until 2 s, when the next four are ready: the copies of the first hide behind the touching of the second.
TEST(Time, CopiesOverlapWithPreparingAndEveryRunTakesTheSameTime) {
    for (int round = 0; round < 20; ++round) {
        StoreBench bench("registered", false, 4);
        bench.driver.timed = true;
        bench.driver.copy_seconds = 0.25;
        bench.driver.memory_of_host().commit_seconds = 1;
        DeviceBytes device(bench.driver, 16 * mib);
        const auto slots = bench.store().reserve(std::vector<std::size_t>(8, 2 * mib));
        VirtualClock::time() = 100;
        bench.offload(device, slots);
        EXPECT_EQ(VirtualClock::time(), 103) << "round " << round;
        bench.offload(device, slots);
        EXPECT_EQ(VirtualClock::time(), 105) << "prepared once, a copy is all there is to do";
        VirtualClock::time() = 0;
    }
}

TEST(Time, TheRingHandsTimeOverToo) {
    for (int round = 0; round < 20; ++round) {
        StoreBench bench("ring", false, 2);
        bench.driver.timed = true;
        bench.driver.copy_seconds = 1;
        DeviceBytes device(bench.driver, 4 * mib);
        const std::array slots{bench.book(4 * mib)};
        VirtualClock::time() = 100;
        bench.offload(device, slots);  // four buffers full, each on a stream of its own
        EXPECT_EQ(VirtualClock::time(), 101);
        VirtualClock::time() = 200;
        bench.restore(device, slots);
        EXPECT_EQ(VirtualClock::time(), 201);
        VirtualClock::time() = 0;
    }
}

}  // namespace
}  // namespace dormouse
