// Backing a writable range with pages before anybody needs them.
//
// The kernel does it in one call since 5.14 (MADV_POPULATE_WRITE), which reports a lack of memory instead of raising
// SIGBUS. Older kernels answer EINVAL; then every page is touched by hand. Either way the bytes stay what they are.
#pragma once

#include <cstddef>

namespace dormouse {

// Like madvise(2): 0, or -1 with errno. A parameter so that tests can play an old kernel or one out of memory.
using Advise = int (*)(void* address, std::size_t bytes, int advice);

// 0, or the errno that the kernel answered. In steps of 64 MiB, so that a kill arrives soon and no other thread waits
// long for the address space's lock.
int populate(void* address, std::size_t bytes, Advise advise) noexcept;

}  // namespace dormouse
