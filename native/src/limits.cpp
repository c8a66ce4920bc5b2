// Reads the limits where Linux publishes them. A file that is missing or unreadable limits nothing: better to try and
// be told by the allocation itself than to refuse on a guess.
//
// A cgroup counts the page cache that its processes read; the inactive part of it is given up under pressure, so it
// counts as room. A container may see its own cgroup as the root of the hierarchy while /proc/self/cgroup names the
// path on the host: the walk from that path upwards skips folders that do not exist and ends at the mount itself.
#include "dormouse/limits.hpp"

#include <sys/resource.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <optional>
#include <sstream>
#include <string_view>

namespace dormouse {
namespace {

namespace fs = std::filesystem;

// The number behind `key` in a file of lines "key number ...".
std::optional<std::size_t> field(const fs::path& file, std::string_view key, int base = 10) {
    std::ifstream in(file);
    for (std::string line; std::getline(in, line);) {
        std::istringstream words(line);
        std::string name, value;
        if (!(words >> name >> value) || name != key) continue;
        try {
            return std::stoull(value, nullptr, base);
        } catch (const std::exception&) {
            return std::nullopt;
        }
    }
    return std::nullopt;
}

// The number in a file of one number; nothing for "max".
std::optional<std::size_t> number(const fs::path& file) {
    std::ifstream in(file);
    std::size_t value = 0;
    if (in >> value) return value;
    return std::nullopt;
}

struct Names {
    const char* limit;
    const char* usage;
    const char* reclaimable;
};
constexpr Names version_1{"memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"};
constexpr Names version_2{"memory.max", "memory.current", "inactive_file"};

std::size_t left_in(const fs::path& group, const Names& names) {
    const auto limit = number(group / names.limit);
    const auto usage = number(group / names.usage);
    if (!limit || !usage) return unlimited;
    const std::size_t reclaimable = field(group / "memory.stat", names.reclaimable).value_or(0);
    const std::size_t used = *usage - std::min(*usage, reclaimable);
    return *limit - std::min(*limit, used);
}

// The least that is left in `path` and the groups above it.
std::size_t left_above(const fs::path& mount, fs::path path, const Names& names) {
    std::size_t left = left_in(mount, names);
    for (path = path.relative_path(); !path.empty(); path = path.parent_path())
        left = std::min(left, left_in(mount / path, names));
    return left;
}

std::size_t left_in_cgroups(const fs::path& root) {
    std::size_t left = unlimited;
    std::ifstream in(root / "proc/self/cgroup");
    for (std::string line; std::getline(in, line);) {  // "4:memory,hugetlb:/path", or "0::/path" of version 2
        const auto first = line.find(':');
        const auto second = first == std::string::npos ? first : line.find(':', first + 1);
        if (second == std::string::npos) continue;
        const std::string controllers = line.substr(first + 1, second - first - 1);
        const fs::path path = line.substr(second + 1);
        if (controllers.empty())
            left = std::min(left, left_above(root / "sys/fs/cgroup", path, version_2));
        else if (("," + controllers + ",").find(",memory,") != std::string::npos)
            left = std::min(left, left_above(root / "sys/fs/cgroup/memory", path, version_1));
    }
    return left;
}

}  // namespace

std::size_t available_host_memory(const std::string& root) {
    const fs::path base(root);
    const auto kib = field(base / "proc/meminfo", "MemAvailable:");
    return std::min(kib ? *kib * 1024 : unlimited, left_in_cgroups(base));
}

std::size_t lockable_memory() {
    constexpr std::size_t cap_ipc_lock = 14;
    const char* status = "/proc/self/status";
    if ((field(status, "CapEff:", 16).value_or(0) >> cap_ipc_lock) & 1) return unlimited;
    rlimit limit{};
    if (getrlimit(RLIMIT_MEMLOCK, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return unlimited;
    const std::size_t locked = 1024 * (field(status, "VmLck:").value_or(0) + field(status, "VmPin:").value_or(0));
    return limit.rlim_cur - std::min<std::size_t>(limit.rlim_cur, locked);
}

}  // namespace dormouse
