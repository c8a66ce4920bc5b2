// The digest that tells whether device memory still holds what a backup holds.
//
// For 64-bit little-endian words w[0..n) that start at word `first` of their range:
//
//     x = w[i] + (first + i + 1) * 0x9E3779B97F4A7C15      position matters
//     x = (x ^ (x >> 32)) * 0xD6E8FEB86659FD93
//     x =  x ^ (x >> 32)
//     digest = sum of all x, modulo 2^64
//
// Each step is a bijection, so a change of one word always changes the digest; any other change goes unseen with a
// chance of about 2^-64. A sum can be taken in any order and in parts: digest(a ++ b) = digest(a, 0) + digest(b, |a|),
// which is what lets a GPU compute it at the speed of its memory. It finds accidents (a writer that nobody hooked),
// not attacks.
#pragma once

#include <cstddef>
#include <cstdint>

namespace dormouse {

inline constexpr std::uint64_t digest_step = 0x9E3779B97F4A7C15ULL;
inline constexpr std::uint64_t digest_multiplier = 0xD6E8FEB86659FD93ULL;

// Of `bytes` (a multiple of 8) at `data` (aligned to 8), on the calling thread.
std::uint64_t digest_of(const void* data, std::size_t bytes, std::uint64_t first_word = 0) noexcept;

}  // namespace dormouse
