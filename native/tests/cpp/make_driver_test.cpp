#include <gtest/gtest.h>

#include "dormouse/clock.hpp"
#include "dormouse/device_memory.hpp"
#include "dormouse/driver.hpp"
#include "dormouse/error.hpp"

namespace dormouse {
namespace {

constexpr std::size_t mib = std::size_t{1} << 20;

DriverOptions small() {
    return {.device = 0, .library = {}, .capacity = 8 * mib};
}

TEST(MakeDriver, GivesTheDriverThatWasAskedFor) {
    EXPECT_EQ(make_driver("host", {})->name(), "host");
    EXPECT_EQ(make_driver("sim", {})->name(), "sim");
    EXPECT_EQ(make_driver("sim", small())->memory().total, 8 * mib);
}

TEST(MakeDriver, AnUnknownNameIsAnInvalidArgument) {
    EXPECT_THROW(make_driver("", {}), invalid_argument);
    EXPECT_THROW(make_driver("CUDA", {}), invalid_argument);
}

TEST(MakeDriver, AMissingLibraryIsADriverErrorForBothVendors) {
    for (const char* kind : {"cuda", "acl"}) {
        EXPECT_THROW(make_driver(kind, {.device = 0, .library = "/nowhere/libnone.so", .capacity = 0}), driver_error);
    }
}

TEST(DriverMemory, IsTheDriversOwn) {
    const auto driver = make_driver("host", small());
    const auto memory = make_driver_memory(*driver, 0);
    EXPECT_EQ(memory->available(), 8 * mib);
    const Address place = 4 * mib;  // a name: nothing is mapped
    const Physical physical = memory->take(place, 6 * mib);
    EXPECT_EQ(memory->available(), 2 * mib);
    EXPECT_THROW(memory->take(place, 4 * mib), out_of_memory);
    memory->let_go(physical);
    memory->returned(place, 6 * mib);
    EXPECT_EQ(memory->available(), 8 * mib);
}

TEST(RealClock, PassesByItselfAndIgnoresOthers) {
    Clock& clock = real_clock();
    const double begin = clock.now();
    clock.catch_up(begin + 1000);
    EXPECT_LT(clock.now(), begin + 500);
    clock.sleep(-1);
    clock.sleep(0.002);
    EXPECT_GE(clock.now(), begin + 0.002);
}

}  // namespace
}  // namespace dormouse
