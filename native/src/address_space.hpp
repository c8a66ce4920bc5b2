// Address space of this process: reserved, aligned for huge pages, without pages yet, and not there in a forked child.
#pragma once

#include <cstddef>

namespace dormouse {

// `protection` is mmap's; PROT_NONE for a range that is opened piece by piece. Throws invalid_argument for a size that
// can't be, host_out_of_memory when the system refuses.
void* reserve_addresses(std::size_t bytes, int protection);
void unreserve_addresses(void* address, std::size_t bytes) noexcept;

// `bytes` in whole pages of the system.
std::size_t whole_pages(std::size_t bytes);

}  // namespace dormouse
