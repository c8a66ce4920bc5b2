#include "dormouse/digest.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <random>
#include <utility>
#include <vector>

namespace dormouse {
namespace {

// Word by word as digest.hpp defines it.
std::uint64_t by_definition(const std::vector<std::uint64_t>& words, std::uint64_t first = 0) {
    std::uint64_t sum = 0;
    for (std::size_t i = 0; i < words.size(); ++i) {
        std::uint64_t x = words[i] + (first + i + 1) * 0x9E3779B97F4A7C15ULL;
        x = (x ^ (x >> 32)) * 0xD6E8FEB86659FD93ULL;
        sum += x ^ (x >> 32);
    }
    return sum;
}

std::uint64_t digest(const std::vector<std::uint64_t>& words, std::uint64_t first = 0) {
    return digest_of(words.data(), words.size() * sizeof(std::uint64_t), first);
}

std::vector<std::uint64_t> random_words(std::size_t count, std::uint64_t seed) {
    std::mt19937_64 random(seed);
    std::vector<std::uint64_t> words(count);
    for (auto& word : words) {
        word = random();
    }
    return words;
}

// Worked out apart from this code (Python's integers), so that no change here can move them unseen.
TEST(Digest, KnownVectors) {
    EXPECT_EQ(digest({}), 0U);
    EXPECT_EQ(digest({0}), 0x17FB89EE9DCAB42AULL);
    EXPECT_EQ(digest({1, 2, 3, 4, 5, 6, 7}), 0xACE7AEDE2CB59FFCULL);
    EXPECT_EQ(digest({1, 2, 3, 4, 5, 6, 7}, 1000), 0x4CF34B287473F125ULL);
    EXPECT_EQ(digest(std::vector<std::uint64_t>(4096, ~std::uint64_t{0})), 0xEC7316452B12A0FAULL);
}

TEST(Digest, EveryLengthFollowsTheDefinition) {
    for (std::size_t count = 0; count < 70; ++count) {
        const auto words = random_words(count, count);
        EXPECT_EQ(digest(words), by_definition(words)) << count;
        EXPECT_EQ(digest(words, ~std::uint64_t{2}), by_definition(words, ~std::uint64_t{2})) << "wraps, " << count;
    }
}

TEST(Digest, PartsAddUpAtEverySplit) {
    const auto words = random_words(257, 7);
    const auto whole = digest(words);
    for (std::size_t cut = 0; cut <= words.size(); ++cut) {
        const auto head = digest_of(words.data(), cut * 8);
        const auto tail = digest_of(words.data() + cut, (words.size() - cut) * 8, cut);
        EXPECT_EQ(head + tail, whole) << cut;
    }
}

TEST(Digest, EverySingleBitChangeIsSeen) {
    auto words = random_words(64, 11);
    const auto before = digest(words);
    for (auto& word : words) {
        for (int bit = 0; bit < 64; ++bit) {
            word ^= std::uint64_t{1} << bit;
            EXPECT_NE(digest(words), before);
            word ^= std::uint64_t{1} << bit;
        }
    }
    EXPECT_EQ(digest(words), before);
}

TEST(Digest, OrderAndPositionMatter) {
    auto words = random_words(100, 13);
    const auto before = digest(words);
    for (std::size_t i = 0; i + 1 < words.size(); ++i) {
        std::swap(words[i], words[i + 1]);
        EXPECT_NE(digest(words), before) << "swapped " << i;
        std::swap(words[i], words[i + 1]);
    }
    EXPECT_NE(digest(words, 1), before);
    // Equal bytes of another length differ too.
    EXPECT_NE(digest(std::vector<std::uint64_t>(8)), digest(std::vector<std::uint64_t>(9)));
}

}  // namespace
}  // namespace dormouse
