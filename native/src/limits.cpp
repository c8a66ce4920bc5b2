// Reads the limits where Linux publishes them. A file that is missing or unreadable limits nothing: better to try and
// be told by the allocation itself than to refuse on a guess.
//
// A cgroup counts the page cache that its processes read; the inactive part of it is given up under pressure, so it
// counts as room. A container may see its own cgroup as the root of the hierarchy while /proc/self/cgroup names the
// path on the host: the walk from that path upwards skips folders that do not exist and ends at the mount itself.
//
// Files are read by the C library, paths are strings and numbers are read by from_chars: what the C++ library has for
// streams and paths lives in shared objects that an engine's own libraries may shadow (with PyTorch in the process it
// was seen to read every number here as 0).
#include "dormouse/limits.hpp"

#include <sys/resource.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace dormouse {
namespace {

// All of a small file; empty if it can't be read.
std::string text_of(const std::string& file) {
    const std::unique_ptr<std::FILE, int (*)(std::FILE*)> in(std::fopen(file.c_str(), "re"), &std::fclose);
    std::string text;
    char part[4096];
    for (std::size_t got = 1; in && got > 0;) {
        got = std::fread(part, 1, sizeof part, in.get());
        text.append(part, got);
    }
    return text;
}

// Takes what is before `end` off the front of `rest`, and `end` too.
std::string_view cut(std::string_view& rest, char end) {
    const std::size_t at = std::min(rest.find(end), rest.size());
    const std::string_view front = rest.substr(0, at);
    rest.remove_prefix(std::min(at + 1, rest.size()));
    return front;
}

// The number that `text` begins with, after blanks; nothing for "max".
std::optional<std::size_t> number_in(std::string_view text, int base = 10) {
    text.remove_prefix(std::min(text.find_first_not_of(" \t"), text.size()));
    std::size_t value = 0;
    if (std::from_chars(text.data(), text.data() + text.size(), value, base).ec != std::errc{}) return std::nullopt;
    return value;
}

// The number behind `key` in a file of lines "key number ...".
std::optional<std::size_t> field(const std::string& file, std::string_view key, int base = 10) {
    const std::string text = text_of(file);
    for (std::string_view rest = text; !rest.empty();) {
        std::string_view line = cut(rest, '\n');
        const std::size_t end = std::min(line.find_first_of(" \t"), line.size());
        if (line.substr(0, end) == key) return number_in(line.substr(end), base);
    }
    return std::nullopt;
}

std::optional<std::size_t> number(const std::string& file) {
    return number_in(text_of(file));
}

struct Names {
    const char* limit;
    const char* usage;
    const char* reclaimable;
};
constexpr Names version_1{"memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"};
constexpr Names version_2{"memory.max", "memory.current", "inactive_file"};

std::size_t left_in(const std::string& group, const Names& names) {
    const auto limit = number(group + "/" + names.limit);
    const auto usage = number(group + "/" + names.usage);
    if (!limit || !usage) return unlimited;
    const std::size_t reclaimable = field(group + "/memory.stat", names.reclaimable).value_or(0);
    const std::size_t used = *usage - std::min(*usage, reclaimable);
    return *limit - std::min(*limit, used);
}

// The least that is left in the group `path`, which begins with a slash, and the groups above it.
std::size_t left_above(const std::string& mount, std::string_view path, const Names& names) {
    std::size_t left = left_in(mount, names);
    for (; !path.empty(); path = path.substr(0, path.rfind('/') == std::string_view::npos ? 0 : path.rfind('/')))
        left = std::min(left, left_in(mount + std::string(path), names));
    return left;
}

std::size_t left_in_cgroups(const std::string& root) {
    std::size_t left = unlimited;
    const std::string text = text_of(root + "/proc/self/cgroup");
    for (std::string_view rest = text; !rest.empty();) {
        std::string_view line = cut(rest, '\n');  // "4:memory,hugetlb:/path", or "0::/path" of version 2
        cut(line, ':');
        const std::string controllers(cut(line, ':'));
        if (controllers.empty())
            left = std::min(left, left_above(root + "/sys/fs/cgroup", line, version_2));
        else if (("," + controllers + ",").find(",memory,") != std::string::npos)
            left = std::min(left, left_above(root + "/sys/fs/cgroup/memory", line, version_1));
    }
    return left;
}

}  // namespace

std::size_t available_host_memory(const std::string& root) {
    const auto kib = field(root + "/proc/meminfo", "MemAvailable:");
    return std::min(kib ? *kib * 1024 : unlimited, left_in_cgroups(root));
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
