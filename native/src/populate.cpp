#include "populate.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

namespace dormouse {

namespace {

constexpr std::size_t step = std::size_t{64} << 20;

// An atomic "or nothing" is a write to the kernel and none to anybody else.
void touch(char* from, std::size_t bytes) noexcept {
    const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    for (std::size_t at = 0; at < bytes; at += page) {
        __atomic_fetch_or(from + at, char{0}, __ATOMIC_RELAXED);
    }
}

}  // namespace

int populate(void* address, std::size_t bytes, Advise advise) noexcept {
    auto* at = static_cast<char*>(address);
    for (std::size_t left = bytes; left > 0;) {
        const std::size_t now = std::min(left, step);
        if (advise(at, now, MADV_POPULATE_WRITE) != 0) {
            if (errno == EINTR || errno == EAGAIN) {
                continue;  // a signal or a page on its way; what is there already is found quickly
            }
            if (errno != EINVAL) {
                return errno;
            }
            touch(at, now);
        }
        at += now;
        left -= now;
    }
    return 0;
}

}  // namespace dormouse
