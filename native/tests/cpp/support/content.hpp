// Bytes in device memory. On the host driver and on the fakes a device address can be used as a pointer, as a kernel
// on the device would use it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "dormouse/digest.hpp"
#include "dormouse/driver.hpp"

namespace dormouse::testing {

// Writes words that depend on `seed` and on their place; returns their digest.
//
// ThreadSanitizer does not watch it: on a device, a kernel may write while a background copy reads, and that is no
// race of the pool's.
#if defined(__SANITIZE_THREAD__)
__attribute__((no_sanitize("thread")))
#endif
inline void scribble(Address address, std::size_t bytes, std::uint64_t seed) {
    auto* words = reinterpret_cast<volatile std::uint64_t*>(address);
    std::uint64_t value = seed * digest_multiplier + digest_step;
    for (std::size_t i = 0; i < bytes / sizeof(std::uint64_t); ++i) {
        words[i] = value;
        value += digest_step;
    }
}

inline std::uint64_t digest_at(Address address, std::size_t bytes) {
    return digest_of(reinterpret_cast<const void*>(address), bytes);
}

// What scribble() left, without a device.
inline std::uint64_t fill(Address address, std::size_t bytes, std::uint64_t seed) {
    scribble(address, bytes, seed);
    return digest_at(address, bytes);
}

#if defined(__SANITIZE_THREAD__)
__attribute__((no_sanitize("thread")))
#endif
inline void flip(Address address) {
    auto* byte = reinterpret_cast<volatile unsigned char*>(address);
    *byte = static_cast<unsigned char>(*byte ^ 1U);
}

}  // namespace dormouse::testing
