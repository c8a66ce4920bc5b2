// A move that can't begin for want of the host's memory leaves no tag in transition: nobody would ever settle it.
#include "dormouse/table.hpp"

#include <gtest/gtest.h>

#include <cstdlib>
#include <new>

#include "dormouse/driver.hpp"

namespace {

// Allocations of this thread until one fails; below 0: none does.
thread_local int allocations_left = -1;

}  // namespace

// Not inline: the compiler would see free() where it expects the delete that belongs to its own new, and warn.
[[gnu::noinline]] void* operator new(std::size_t bytes) {
    if (allocations_left == 0) {
        allocations_left = -1;
        throw std::bad_alloc();
    }
    if (allocations_left > 0) {
        --allocations_left;
    }
    if (void* memory = std::malloc(bytes)) {
        return memory;
    }
    throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* memory) noexcept {
    std::free(memory);
}
[[gnu::noinline]] void operator delete(void* memory, std::size_t /*bytes*/) noexcept {
    std::free(memory);
}

namespace dormouse {
namespace {

constexpr int allocations_of_a_move = 200;  // far more than one makes

TEST(TableTest, AMoveThatCannotBeginForWantOfMemoryMarksNothing) {
    const std::unique_ptr<Driver> driver = make_driver("host", {});
    Table table;
    for (const char* tag : {"weights", "kv_cache"}) {
        table.add(std::make_shared<Segment>(*driver, tag, driver->granularity(), driver->granularity()));
    }
    const Table::Wish wish = {{"weights", TagState::offloaded}, {"kv_cache", TagState::discarded}};
    int failures = 0;
    for (int number = 0; number < allocations_of_a_move; ++number) {
        allocations_left = number;
        try {
            const Table::Move move = table.begin(wish);
            allocations_left = -1;
            break;
        } catch (const std::bad_alloc&) {
            ++failures;
        }
        for (const auto& [tag, state] : table.tags()) {
            ASSERT_EQ(state, TagState::resident) << tag << " after failed allocation " << number;
        }
    }
    EXPECT_GT(failures, 4);
    EXPECT_LT(failures, allocations_of_a_move) << "a move with all its memory begins";
}

}  // namespace
}  // namespace dormouse
