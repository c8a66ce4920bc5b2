// The digest kernel's own text, run instruction by instruction (support/ptx_machine.hpp): what it reads and what it
// computes. That a device's compiler takes it, and how fast it is, only a device can tell.
#include "drivers/cuda_digest_kernel.hpp"

#include <gtest/gtest.h>

#include <random>

#include "dormouse/digest.hpp"
#include "support/ptx_machine.hpp"

namespace dormouse {
namespace {

struct Outcome {
    std::uint64_t digest = 0;
    std::vector<unsigned> reads;
    unsigned additions = 0;
};

Outcome run(const std::vector<std::uint64_t>& words, unsigned blocks, std::uint64_t first_word = 0,
            const std::string& kernel = cuda::digest_kernel) {
    // Aligned to 16 bytes, as device memory is.
    const auto address = reinterpret_cast<ptx::Word>(words.data());
    EXPECT_EQ(address % 16, 0U);
    ptx::Machine machine(kernel);
    machine.readable(words.data(), words.size() * 8);
    Outcome outcome;
    machine.launch(blocks, cuda::digest_threads,
                   {{"address", address},
                    {"words", words.size()},
                    {"first_word", first_word},
                    {"out", reinterpret_cast<ptx::Word>(&outcome.digest)}});
    outcome.reads = machine.reads();
    outcome.additions = machine.additions();
    return outcome;
}

std::vector<std::uint64_t> random_words(std::size_t vectors, unsigned seed) {
    std::mt19937_64 random(seed);
    std::vector<std::uint64_t> words(vectors * 2);
    for (auto& word : words) word = random();
    return words;
}

// A block takes 256 vectors in a step and 1024 in four; sizes around those, for grids that fit and that don't.
class Sizes : public ::testing::TestWithParam<std::tuple<std::size_t, unsigned>> {};

TEST_P(Sizes, EveryVectorIsReadOnceAndTheDigestIsThatOfTheHost) {
    const auto [vectors, blocks] = GetParam();
    const auto words = random_words(vectors, static_cast<unsigned>(vectors) + blocks);
    const Outcome outcome = run(words, blocks);
    for (std::size_t i = 0; i < vectors; ++i) ASSERT_EQ(outcome.reads[i], 1U) << "vector " << i;
    EXPECT_EQ(outcome.digest, digest_of(words.data(), words.size() * 8));
    EXPECT_EQ(outcome.additions, blocks) << "one addition to memory per block";
}

INSTANTIATE_TEST_SUITE_P(Awkward, Sizes,
                         ::testing::Combine(::testing::Values(1, 2, 31, 33, 255, 256, 257, 1023, 1024, 1025, 3071,
                                                              3077),
                                            ::testing::Values(1U, 2U, 3U)));

TEST(CudaDigestKernel, StartsAtTheWordThatItIsTold) {
    const auto words = random_words(700, 7);
    for (const std::uint64_t first : {std::uint64_t{1}, std::uint64_t{6}, std::uint64_t{1} << 40}) {
        EXPECT_EQ(run(words, 2, first).digest, digest_of(words.data(), words.size() * 8, first)) << first;
    }
}

TEST(CudaDigestKernel, AddsToWhatIsThereSoThatPartsMakeTheWhole) {
    const auto words = random_words(600, 8);
    const std::vector<std::uint64_t> front(words.begin(), words.begin() + 402);
    const std::vector<std::uint64_t> back(words.begin() + 402, words.end());
    EXPECT_EQ(run(front, 1).digest + run(back, 1, 402).digest, digest_of(words.data(), words.size() * 8));
}

TEST(CudaDigestKernel, SeesEveryBitOfEveryWordOfAVector) {
    auto words = random_words(3, 9);
    const auto before = run(words, 1).digest;
    for (auto& word : words) {
        for (int bit = 0; bit < 64; bit += 7) {
            word ^= std::uint64_t{1} << bit;
            EXPECT_NE(run(words, 1).digest, before);
            word ^= std::uint64_t{1} << bit;
        }
    }
}

// The machine of this test finds what it is there to find.
TEST(CudaDigestKernel, AKernelThatSkipsItsTailOrStepsTooFarIsCaught) {
    const auto broken = [](const std::string& from, const std::string& to) {
        std::string kernel = cuda::digest_kernel;
        kernel.replace(kernel.find(from), from.size(), to);
        return kernel;
    };
    const auto words = random_words(1025, 10);
    const auto right = digest_of(words.data(), words.size() * 8);
    EXPECT_NE(run(words, 2, 0, broken("@done bra rest", "@done bra reduce")).digest, right);
    EXPECT_THROW(run(words, 1, 0, broken("add.u64 last, vector, span", "add.u64 last, vector, stride")),
                 std::runtime_error);
    EXPECT_THROW(run(words, 1, 0, broken("  @other bra together", "  @other bra end")), std::runtime_error);
}

}  // namespace
}  // namespace dormouse
