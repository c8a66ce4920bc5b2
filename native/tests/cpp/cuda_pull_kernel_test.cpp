// The pull kernel's own text, run instruction by instruction (support/ptx_machine.hpp): what it reads, what it writes,
// and where. That a device's compiler takes it, and how fast it is, only a device can tell.
#include "drivers/cuda_pull_kernel.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <random>

#include "support/ptx_machine.hpp"

namespace dormouse {
namespace {

constexpr std::uint64_t untouched = 0xDEADDEADDEADDEAD;

struct Outcome {
    std::vector<std::uint64_t> from, to;
    std::vector<unsigned> reads, writes;
};

Outcome run(std::size_t vectors, unsigned blocks, const std::string& kernel = cuda::pull_kernel) {
    Outcome outcome;
    std::mt19937_64 random(vectors + blocks);
    outcome.from.resize(2 * vectors);
    std::generate(outcome.from.begin(), outcome.from.end(), std::ref(random));
    outcome.to.assign(2 * vectors, untouched);
    ptx::Machine machine(kernel);
    machine.readable(outcome.from.data(), vectors * 16);
    machine.writable(outcome.to.data(), vectors * 16);
    machine.launch(blocks, cuda::pull_threads,
                   {{"to", reinterpret_cast<ptx::Word>(outcome.to.data())},
                    {"from", reinterpret_cast<ptx::Word>(outcome.from.data())},
                    {"count", vectors}});
    outcome.reads = machine.reads();
    outcome.writes = machine.writes();
    return outcome;
}

// A block takes 512 vectors in a step and 2048 in four; sizes around those, for grids that fit and that don't.
class Pulls : public ::testing::TestWithParam<std::tuple<std::size_t, unsigned>> {};

TEST_P(Pulls, EveryVectorIsReadOnceAndWrittenOnceToItsPlace) {
    const auto [vectors, blocks] = GetParam();
    const Outcome outcome = run(vectors, blocks);
    EXPECT_EQ(outcome.to, outcome.from);
    for (std::size_t i = 0; i < vectors; ++i) {
        ASSERT_EQ(outcome.reads[i], 1U) << "vector " << i;
        ASSERT_EQ(outcome.writes[i], 1U) << "vector " << i;
    }
}

INSTANTIATE_TEST_SUITE_P(Awkward, Pulls,
                         ::testing::Combine(::testing::Values(1, 31, 511, 512, 513, 1024, 1537, 2047, 2048, 2049, 4096,
                                                              6151),
                                            ::testing::Values(1U, 2U, 3U)));

// The machine of this test finds what it is there to find.
TEST(CudaPullKernel, AKernelThatSkipsItsTailOrStepsTooFarIsCaught) {
    const auto broken = [](const std::string& from, const std::string& to) {
        std::string kernel = cuda::pull_kernel;
        kernel.replace(kernel.find(from), from.size(), to);
        return kernel;
    };
    const Outcome skipped = run(513, 1, broken("  @second  st.global.cs.v2.u64 [out1], {b0, b1};\n", ""));
    EXPECT_EQ(skipped.to[std::size_t{2} * 512], untouched);
    EXPECT_THROW(run(2049, 1, broken("add.u64 last, vector, span", "add.u64 last, vector, stride")),
                 std::runtime_error);
    const Outcome astray = run(3000, 1, broken("add.u64 out, out3, step", "add.u64 out, out3, leap"));
    EXPECT_NE(astray.to, astray.from);
}

}  // namespace
}  // namespace dormouse
