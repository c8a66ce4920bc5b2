// The C functions that torch loads: nothing is thrown, every failure is NULL and a sentence.
#include "dormouse/torch_abi.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <memory>
#include <string>
#include <thread>

#include "dormouse/error.hpp"
#include "support/content.hpp"
#include "support/rig.hpp"

namespace dormouse {
namespace {

using namespace dormouse::testing;

std::shared_ptr<Pool> host_pool(std::size_t capacity) {
    DriverOptions where;
    where.capacity = capacity;
    return std::make_shared<Pool>(make_driver("host", where), 0, small_pool());
}

// An installed pool lives until the process ends, so each test has a device of its own.
std::shared_ptr<Pool> installed_pool(int device, std::size_t capacity = 64 * MiB) {
    auto pool = host_pool(capacity);
    install(pool, device);
    return pool;
}

bool says(const std::string& words) {
    return std::string(dormouse_last_error()).find(words) != std::string::npos;
}

TEST(TorchAbi, AllocatesFreesAndSleepsThroughTheInstalledPool) {
    const auto pool = installed_pool(1);
    EXPECT_EQ(installed(1), pool);
    void* const block = dormouse_malloc(3 * MiB, 1, nullptr);
    ASSERT_NE(block, nullptr);
    const auto address = reinterpret_cast<Address>(block);
    EXPECT_EQ(pool->size_of(address), 4 * MiB);
    const std::uint64_t digest = fill(address, 4 * MiB, 1);
    pool->sleep(1);
    pool->wake({});
    EXPECT_EQ(digest_at(address, 4 * MiB), digest);
    dormouse_free(block, 3 * MiB, 1, nullptr);
    EXPECT_EQ(pool->stats().mapped_bytes, 0U);
}

TEST(TorchAbi, NoRoomIsNullWithAReasonAndTheNextAllocationWorks) {
    const auto pool = installed_pool(2, 8 * MiB);
    EXPECT_EQ(dormouse_malloc(64 * MiB, 2, nullptr), nullptr);
    EXPECT_TRUE(says("of device memory")) << dormouse_last_error();
    EXPECT_EQ(pool->stats().mapped_bytes, 0U);
    void* const block = dormouse_malloc(4 * MiB, 2, nullptr);
    EXPECT_NE(block, nullptr);
    dormouse_free(block, 4 * MiB, 2, nullptr);
}

TEST(TorchAbi, AllocatesUnderTheTagOfItsThread) {
    const auto pool = installed_pool(3);
    EXPECT_EQ(set_tag("weights"), "default");
    void* const mine = dormouse_malloc(2 * MiB, 3, nullptr);
    void* other = nullptr;
    std::thread([&] {
        other = dormouse_malloc(2 * MiB, 3, nullptr);
        EXPECT_EQ(set_tag("kv_cache"), "default") << "a tag is its thread's own";
    }).join();
    EXPECT_EQ(set_tag("default"), "weights");
    EXPECT_EQ(pool->stats().tags.at("weights").segments, 1U);
    EXPECT_EQ(pool->stats().tags.at("default").segments, 1U);
    EXPECT_FALSE(pool->stats().tags.contains("kv_cache"));
    EXPECT_THROW(set_tag(""), invalid_argument);
    dormouse_free(mine, 2 * MiB, 3, nullptr);
    dormouse_free(other, 2 * MiB, 3, nullptr);
}

TEST(TorchAbi, AnAllocationUnderASleepingTagIsNullWithAReason) {
    const auto pool = installed_pool(4);
    void* const block = dormouse_malloc(2 * MiB, 4, nullptr);
    pool->sleep(1);
    EXPECT_EQ(dormouse_malloc(2 * MiB, 4, nullptr), nullptr);
    EXPECT_TRUE(says("wake it")) << dormouse_last_error();
    dormouse_free(block, 2 * MiB, 4, nullptr);  // asleep
    EXPECT_EQ(pool->stats().store.reserved, 0U);
}

TEST(TorchAbi, WithoutAPoolThereIsNothingToHaveAndNothingToFree) {
    for (const int device : {60, -1, 64, 1000000}) {
        EXPECT_EQ(installed(device), nullptr);
        EXPECT_EQ(dormouse_malloc(2 * MiB, device, nullptr), nullptr);
        EXPECT_TRUE(says("no pool is installed")) << dormouse_last_error();
        int local = 0;
        dormouse_free(&local, 4, device, nullptr);
    }
}

TEST(TorchAbi, AForeignPointerIsRefusedWithoutHarm) {
    const auto pool = installed_pool(5);
    void* const block = dormouse_malloc(4 * MiB, 5, nullptr);
    int local = 0;
    dormouse_free(&local, 4, 5, nullptr);
    EXPECT_TRUE(says("no segment")) << dormouse_last_error();
    dormouse_free(nullptr, 0, 5, nullptr);
    dormouse_free(static_cast<char*>(block) + 4096, 0, 5, nullptr);
    EXPECT_EQ(pool->stats().mapped_bytes, 4 * MiB);
    dormouse_free(block, 0, 5, nullptr);
    dormouse_free(block, 0, 5, nullptr);
    EXPECT_TRUE(says("no segment")) << "freed twice";
    EXPECT_EQ(dormouse_malloc(0, 5, nullptr), nullptr);
}

// What torch does: it frees its segments in handlers that were registered before anything of the pool was used, and so
// run after the process has ended everything that the pool's code made later.
void* left_to_the_end = nullptr;

void free_late() {
    dormouse_free(left_to_the_end, 4 * MiB, 7, nullptr);
    dormouse_free(&left_to_the_end, 4 * MiB, 7, nullptr);  // and once what is none of ours
    ::_exit(says("no segment of this pool") && installed(7)->stats().mapped_bytes == 0 &&
                    dormouse_malloc(1, 7, nullptr) == nullptr && says("a tag with a name that fits in no small string")
                ? 0
                : 1);
}

[[noreturn]] void end_with_memory_left() {
    std::atexit(free_late);
    const auto pool = installed_pool(7);
    set_tag("a tag with a name that fits in no small string");
    left_to_the_end = dormouse_malloc(4 * MiB, 7, nullptr);
    dormouse_malloc(4096 * MiB, 7, nullptr);  // leaves a long sentence
    pool->sleep(std::vector<std::string>{"a tag with a name that fits in no small string"});
    std::exit(2);
}

TEST(TorchAbiDeathTest, AFreeAtTheVeryEndOfTheProcessIsServed) {
    GTEST_FLAG_SET(death_test_style, "threadsafe");
    EXPECT_EXIT(end_with_memory_left(), ::testing::ExitedWithCode(0), "");
}

TEST(TorchAbi, TheLastErrorIsTheThreadsOwn) {
    const auto pool = installed_pool(6);
    EXPECT_EQ(dormouse_malloc(0, 6, nullptr), nullptr);
    EXPECT_TRUE(says("0 bytes"));
    std::thread([] { EXPECT_STREQ(dormouse_last_error(), ""); }).join();
}

TEST(TorchAbi, ASecondPoolOnADeviceIsRefusedAndTheFirstStays) {
    const auto pool = installed_pool(7);
    EXPECT_NO_THROW(install(pool, 7)) << "the same one again";
    EXPECT_THROW(install(host_pool(8 * MiB), 7), illegal_state);
    EXPECT_EQ(installed(7), pool);
    EXPECT_THROW(install(host_pool(8 * MiB), -1), invalid_argument);
    EXPECT_THROW(install(host_pool(8 * MiB), 64), invalid_argument);
}

}  // namespace
}  // namespace dormouse
