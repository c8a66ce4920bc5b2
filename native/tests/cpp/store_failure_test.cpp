// What every kind of store promises when something fails: nothing is lost, nothing leaks, and the next try works.
#include <gtest/gtest.h>

#include <array>
#include <functional>
#include <string>
#include <tuple>

#include "support/store_bench.hpp"

namespace dormouse {
namespace {

constexpr std::size_t mib = StoreBench::mib;
constexpr unsigned enough = 200;  // more calls of one name than any transfer here makes

// Lets the n-th call of `call` fail for n = 1, 2, … until `run` no longer meets it; returns how many failed. Throws
// what `run` throws for any other reason.
unsigned fail_each(Faults& faults, const std::string& call, const std::function<void()>& run,
                   const std::function<void()>& after_failure) {
    for (unsigned n = 1; n < enough; ++n) {
        faults.fail(call, n);
        try {
            run();
            faults.forgive();
            return n - 1;
        } catch (const error& failure) {
            EXPECT_NE(std::string(failure.what()).find("injected"), std::string::npos) << failure.what();
        }
        faults.forgive();
        after_failure();
    }
    ADD_FAILURE() << call << " never stopped failing";
    return enough;
}

using Case = std::tuple<const char*, const char*>;  // kind, call

class CallsWithFault : public ::testing::TestWithParam<Case> {
   protected:
    std::string kind = std::get<0>(GetParam());
    std::string call = std::get<1>(GetParam());
};
const auto case_name = [](const auto& param) {
    return std::string(std::get<0>(param.param)) + "_" + std::get<1>(param.param);
};
const auto both_kinds = ::testing::Values("registered", "ring");

class AnOffloadsCall : public CallsWithFault {};
INSTANTIATE_TEST_SUITE_P(Calls, AnOffloadsCall,
                         ::testing::Combine(both_kinds, ::testing::Values("create_stream", "copy_to_host",
                                                                          "synchronize", "commit")),
                         case_name);
class ARestoresCall : public CallsWithFault {};
INSTANTIATE_TEST_SUITE_P(Calls, ARestoresCall,
                         ::testing::Combine(both_kinds, ::testing::Values("copy_to_device", "synchronize")), case_name);
class ACallUnderWay : public CallsWithFault {};
INSTANTIATE_TEST_SUITE_P(Calls, ACallUnderWay,
                         ::testing::Combine(both_kinds, ::testing::Values("copy_to_host", "synchronize", "commit")),
                         case_name);

TEST_P(AnOffloadsCall, ThatFailsLeavesTheDeviceAndASecondTryWorks) {
    StoreBench bench(kind);
    DeviceBytes device(bench.driver, 12 * mib);
    device.fill(1);
    std::vector<Slot> slots;
    const auto book = [&] { slots = bench.store().reserve(std::vector<std::size_t>(3, 4 * mib)); };
    book();
    const unsigned failures = fail_each(
        bench.driver.faults, call, [&] { bench.offload(device, slots); },
        [&] {
            EXPECT_TRUE(device.holds(1));
            EXPECT_EQ(bench.driver.queued(), 0u) << "something is still under way";
            EXPECT_EQ(bench.store().stats().reserved, 12 * mib);
            for (const Slot slot : slots) {  // what a sleep that fails does
                bench.store().release(slot);
            }
            bench.store().drain();
            const StoreStats stats = bench.store().stats();
            EXPECT_EQ(stats.committed, 0u);
            EXPECT_EQ(bench.driver.pinned(), stats.pinned) << "only buffers are left";
            book();
        });
    EXPECT_GT(failures, 0u) << "nothing was tried";
    device.fill(2);
    bench.restore(device, slots);
    EXPECT_TRUE(device.holds(1));
    bench.expect_nothing_left();
}

TEST_P(ARestoresCall, ThatFailsLeavesTheBackupAndASecondTryWorks) {
    StoreBench bench(kind);
    DeviceBytes device(bench.driver, 12 * mib);
    device.fill(1);
    const auto slots = bench.store().reserve(std::vector<std::size_t>(3, 4 * mib));
    bench.offload(device, slots);
    const unsigned failures = fail_each(
        bench.driver.faults, call,
        [&] {
            device.fill(2);
            bench.restore(device, slots);
        },
        [&] { EXPECT_EQ(bench.driver.queued(), 0u) << "something is still under way"; });
    EXPECT_GT(failures, 0u) << "nothing was tried";
    EXPECT_TRUE(device.holds(1));
    bench.expect_nothing_left();
}

TEST_P(ACallUnderWay, ThatFailsIsNotForgottenByTheTransferThatMetIt) {
    StoreBench bench(kind);
    DeviceBytes device(bench.driver, 4 * mib);
    const Slot slot = bench.book(4 * mib);
    const auto transfer = bench.store().offload(Priority::normal);
    bench.driver.faults.fail(call, 1);
    EXPECT_THROW(
        {
            transfer->add({device.address(), 4 * mib, slot, 0});
            transfer->finish();
        },
        error);
    bench.driver.faults.forgive();
    EXPECT_THROW(transfer->finish(), error) << "never a success after a failure";
    EXPECT_THROW(transfer->add({device.address(), 4 * mib, slot, 0}), error);
}

// ── the ladder: pin, then the ring; pinned buffers, then the driver's own, then pageable copies ───────────────

TEST(Ladder, ASlotThatCannotBePinnedGoesThroughTheRing) {
    for (unsigned n = 1; n <= 4; ++n) {
        StoreBench bench("registered");
        DeviceBytes device(bench.driver, 16 * mib);
        device.fill(1);
        const auto slots = bench.store().reserve(std::vector<std::size_t>(4, 4 * mib));
        bench.driver.faults.fail("pin", n);
        bench.offload(device, slots);
        device.fill(2);
        bench.restore(device, slots);
        EXPECT_TRUE(device.holds(1)) << "pin number " << n;
        const StoreStats stats = bench.store().stats();
        EXPECT_NE(stats.reason.find("could not be pinned: 1 blocks"), std::string::npos) << stats.reason;
        EXPECT_NE(stats.reason.find("injected"), std::string::npos) << stats.reason;
        EXPECT_EQ(stats.committed, 16 * mib);
        EXPECT_EQ(stats.pinned, 12 * mib + 3 * 2 * mib);
        EXPECT_EQ(bench.driver.pinned(), stats.pinned);
        bench.expect_nothing_left();
    }
}

TEST(Ladder, AHalfPinnedSlotUsesBothWays) {
    StoreBench bench("registered");
    DeviceBytes device(bench.driver, 8 * mib);
    device.fill(1);
    const Slot slot = bench.book(block_bytes + 4 * mib);
    bench.driver.faults.fail("pin", 2);
    bench.store().prepare(slot);
    const std::size_t begin = block_bytes - 4 * mib;
    const auto out = bench.store().offload(Priority::normal);
    out->add({device.address(), 8 * mib, slot, begin});
    out->finish();
    device.fill(2);
    const auto back = bench.store().restore();
    back->add({device.address(), 8 * mib, slot, begin});
    back->finish();
    EXPECT_TRUE(device.holds(1));
    EXPECT_EQ(bench.driver.violations, 0u);
}

TEST(Ladder, BuffersComeFromTheDriverWherePinningFails) {
    for (const char* kind : {"registered", "ring"}) {
        StoreBench bench(kind);
        DeviceBytes device(bench.driver, 8 * mib);
        device.fill(1);
        const std::array slots{bench.book(8 * mib)};
        bench.driver.faults.fail("pin", 1, enough);
        bench.offload(device, slots);
        device.fill(2);
        bench.restore(device, slots);
        EXPECT_TRUE(device.holds(1));
        EXPECT_EQ(bench.driver.faults.calls("host_alloc"), 6u);
        EXPECT_EQ(bench.store().stats().pinned, 6 * mib);
        bench.expect_nothing_left();
    }
}

TEST(Ladder, FewerBuffersThanWantedMeanFewerLanes) {
    StoreBench bench("ring");
    DeviceBytes device(bench.driver, 8 * mib);
    device.fill(1);
    const std::array slots{bench.book(8 * mib)};
    bench.driver.faults.fail("pin", 4, enough);
    bench.driver.faults.fail("host_alloc", 1, enough);
    bench.offload(device, slots);
    device.fill(2);
    bench.restore(device, slots);
    EXPECT_TRUE(device.holds(1));
    EXPECT_EQ(bench.store().stats().pinned, 2 * mib) << "one lane; the half of a second is given back";
    EXPECT_EQ(bench.driver.pinned(), 2 * mib);
    bench.expect_nothing_left();
}

TEST(Ladder, PageableCopiesAreTheLastStep) {
    for (const char* kind : {"registered", "ring"}) {
        StoreBench bench(kind, true);
        DeviceBytes device(bench.driver, 8 * mib);
        device.fill(1);
        const std::array slots{bench.book(8 * mib)};
        bench.driver.faults.fail("pin", 1, enough);
        bench.driver.faults.fail("host_alloc", 1, enough);
        bench.offload(device, slots);
        device.fill(2);
        bench.restore(device, slots);
        EXPECT_TRUE(device.holds(1));
        EXPECT_EQ(bench.store().stats().pinned, 0u);
        bench.expect_nothing_left();
    }
}

TEST(Ladder, WithoutAnyStepTheOffloadFailsAndLosesNothing) {
    for (const char* kind : {"registered", "ring"}) {
        StoreBench bench(kind, false);
        DeviceBytes device(bench.driver, 8 * mib);
        device.fill(1);
        const std::array slots{bench.book(8 * mib)};
        bench.driver.faults.fail("pin", 1, enough);
        bench.driver.faults.fail("host_alloc", 1, enough);
        EXPECT_THROW(bench.offload(device, slots), driver_error);
        EXPECT_THROW(bench.store().prepare(slots[0]), driver_error);
        EXPECT_TRUE(device.holds(1));
        EXPECT_EQ(bench.driver.faults.calls("copy_to_host"), 0u);
        bench.driver.faults.forgive();
        bench.offload(device, slots);
        device.fill(2);
        bench.restore(device, slots);
        EXPECT_TRUE(device.holds(1));
        bench.expect_nothing_left();
    }
}

// ── memory ──────────────────────────────────────────────────────────────────────────────────────────────

TEST(Memory, APrepareThatFailsLeavesTheSlotColdAndCanBeTriedAgain) {
    for (const char* kind : {"registered", "ring"}) {
        StoreBench bench(kind);
        const Slot slot = bench.book(4 * mib);
        bench.driver.faults.fail("commit", 1);
        EXPECT_THROW(bench.store().prepare(slot), host_out_of_memory);
        EXPECT_EQ(bench.store().stats().committed, 0u);
        bench.store().prepare(slot);
        EXPECT_EQ(bench.store().stats().committed, 4 * mib);
        bench.expect_nothing_left();
    }
}

TEST(Memory, ReserveBooksNothingWhenAddressSpaceEnds) {
    StoreBench bench("ring");
    bench.book(512 * mib);
    bench.driver.faults.fail("host_reserve", 1, 2);
    EXPECT_THROW(bench.store().reserve(std::vector{256 * mib, 1024 * mib}), host_out_of_memory);
    EXPECT_EQ(bench.store().stats().reserved, 512 * mib);
    bench.book(512 * mib);
    EXPECT_EQ(bench.driver.faults.calls("host_reserve"), 3u) << "the first region still has its other half";
}

TEST(Memory, ThatSomebodyTookSinceItWasBookedIsRefusedBeforeItIsTouched) {
    for (const bool checks : {true, false}) {
        StoreBench bench("registered");
        bench.options.check_host_memory = checks;
        DeviceBytes device(bench.driver, 8 * mib);
        device.fill(1);
        const auto slots = bench.store().reserve(std::vector<std::size_t>(2, 4 * mib));
        bench.driver.memory_of_host().room = mib;
        if (checks) {
            EXPECT_THROW(bench.offload(device, slots), host_out_of_memory);
            EXPECT_EQ(bench.driver.memory_of_host().committed(), 0u);
            EXPECT_TRUE(device.holds(1));
            bench.driver.memory_of_host().room = unlimited;
        }
        bench.offload(device, slots);
        device.fill(2);
        bench.restore(device, slots);
        EXPECT_TRUE(device.holds(1));
    }
}

TEST(Memory, WhatTheDriverWillNotUnpinIsKeptCountedAndNeverUsedAgain) {
    StoreBench bench("registered");
    const Slot slot = bench.book(4 * mib);
    bench.store().prepare(slot);
    bench.driver.faults.fail("unpin", 1);
    bench.store().release(slot);
    bench.store().drain();
    StoreStats stats = bench.store().stats();
    EXPECT_EQ(stats.reserved, 0u);
    EXPECT_EQ(stats.committed, 4 * mib);
    EXPECT_EQ(stats.pinned, 4 * mib);
    EXPECT_NE(stats.reason.find("would not unpin"), std::string::npos) << stats.reason;
    const Slot next = bench.book(4 * mib);
    bench.store().prepare(next);  // elsewhere: pinning the same place twice would be a violation
    bench.store().release(next);
    bench.store().drain();
    stats = bench.store().stats();
    EXPECT_EQ(stats.pinned, 4 * mib);
    EXPECT_EQ(bench.driver.violations, 0u);
}

}  // namespace
}  // namespace dormouse
