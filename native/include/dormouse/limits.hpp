// What the operating system lets this process take: memory of the host and of its cgroup, and locked memory.
#pragma once

#include <cstddef>
#include <limits>
#include <string>

namespace dormouse {

inline constexpr std::size_t unlimited = std::numeric_limits<std::size_t>::max();

// MemAvailable, or what is left of the tightest cgroup (v2 or v1) above this process, whichever is less. `root` is
// where /proc and /sys are found (tests give a folder of their own).
std::size_t available_host_memory(const std::string& root = "/");

// Bytes this process may still lock; `unlimited` with CAP_IPC_LOCK or no limit.
std::size_t lockable_memory();

}  // namespace dormouse
