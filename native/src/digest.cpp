// digest_of: the digest of digest.hpp on one core, with the vector multiplier of AVX-512 where the processor has one.
//
// The baseline is scalar on purpose: a 64-bit multiply is one instruction there and three with SSE2. The choice is made
// by a plain test and not by an ifunc, which runs before a sanitizer is ready.
#include "dormouse/digest.hpp"

#include <bit>

namespace dormouse {

static_assert(std::endian::native == std::endian::little, "words are little-endian; swap bytes here on such a machine");

namespace {

inline std::uint64_t mix(std::uint64_t x) noexcept {
    x = (x ^ (x >> 32)) * digest_multiplier;
    return x ^ (x >> 32);
}

// `lanes` words at a time, in chains that don't depend on one another.
template <std::size_t lanes>
[[gnu::always_inline]] inline std::uint64_t sum_of(const std::uint64_t* word, std::size_t words, std::uint64_t at) {
    std::uint64_t sums[lanes] = {};
    std::size_t i = 0;
    for (; i + lanes <= words; i += lanes) {
        for (std::size_t lane = 0; lane < lanes; ++lane) {
            sums[lane] += mix(word[i + lane] + (at + lane * digest_step));
        }
        at += lanes * digest_step;
    }
    std::uint64_t sum = 0;
    for (; i < words; ++i, at += digest_step) {
        sum += mix(word[i] + at);
    }
    for (const std::uint64_t lane : sums) {
        sum += lane;
    }
    return sum;
}

std::uint64_t scalar(const std::uint64_t* word, std::size_t words, std::uint64_t at) noexcept {
    return sum_of<4>(word, words, at);
}

#if defined(__x86_64__)
[[gnu::target("avx512f,avx512dq,avx512vl"),
  gnu::optimize("O3")]] std::uint64_t wide(const std::uint64_t* word, std::size_t words, std::uint64_t at) noexcept {
    return sum_of<32>(word, words, at);
}

const bool has_wide = __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
#else
constexpr auto wide = scalar;
constexpr bool has_wide = false;
#endif

}  // namespace

std::uint64_t digest_of(const void* data, std::size_t bytes, std::uint64_t first_word) noexcept {
    const auto* word = static_cast<const std::uint64_t*>(data);
    return (has_wide ? wide : scalar)(word, bytes / sizeof(std::uint64_t), (first_word + 1) * digest_step);
}

}  // namespace dormouse
