// The memory chips of the fake device: one sparse file in RAM, pieces of which appear wherever they are mapped.
//
// A file, because content must stay with the physical allocation while its place in the address space changes. One
// file for all, because a process has few file descriptors.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <optional>

namespace fake {

class Storage {
   public:
    // A new piece full of poison; its offset. None when the host's memory is short.
    std::optional<off_t> create(std::size_t bytes);
    void destroy(off_t offset, std::size_t bytes);
    void clear();
    // Shows a piece at `address`, without access.
    bool show(std::uint64_t address, std::size_t bytes, off_t offset);

   private:
    int file_ = -1;
    off_t end_ = 0;
};

// Address space without memory, aligned to `alignment` (a power of two, pages at least); 0 when there is none.
std::uint64_t reserve_space(std::size_t bytes, std::size_t alignment);
void release_space(std::uint64_t address, std::size_t bytes);
// Takes away whatever is shown in a piece of reserved space.
bool hide(std::uint64_t address, std::size_t bytes);
// `access` as in Access::flags.
bool protect(std::uint64_t address, std::size_t bytes, int access);

}  // namespace fake
