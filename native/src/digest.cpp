// digest_of: the digest of digest.hpp on one core.
//
// Plain scalar code on purpose: a 64-bit multiply is one instruction there and three with SSE2, so vectorising it for
// the baseline of x86-64 makes it slower, and choosing code by CPU at run time (ifuncs) is more than it is worth. Four
// words at a time keep the multiplier busy: their chains don't depend on one another.
#include "dormouse/digest.hpp"

#include <bit>

namespace dormouse {

static_assert(std::endian::native == std::endian::little, "words are little-endian; swap bytes here on such a machine");

namespace {

inline std::uint64_t mix(std::uint64_t x) noexcept {
    x = (x ^ (x >> 32)) * digest_multiplier;
    return x ^ (x >> 32);
}

}  // namespace

std::uint64_t digest_of(const void* data, std::size_t bytes, std::uint64_t first_word) noexcept {
    const auto* word = static_cast<const std::uint64_t*>(data);
    const std::size_t words = bytes / sizeof(std::uint64_t);
    std::uint64_t at = (first_word + 1) * digest_step;
    std::uint64_t sum0 = 0, sum1 = 0, sum2 = 0, sum3 = 0;
    std::size_t i = 0;
    for (; i + 4 <= words; i += 4) {
        sum0 += mix(word[i] + at);
        sum1 += mix(word[i + 1] + (at + digest_step));
        sum2 += mix(word[i + 2] + (at + 2 * digest_step));
        sum3 += mix(word[i + 3] + (at + 3 * digest_step));
        at += 4 * digest_step;
    }
    for (; i < words; ++i, at += digest_step) {
        sum0 += mix(word[i] + at);
    }
    return sum0 + sum1 + sum2 + sum3;
}

}  // namespace dormouse
