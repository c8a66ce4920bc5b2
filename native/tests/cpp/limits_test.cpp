#include "dormouse/limits.hpp"

#include <gtest/gtest.h>
#include <linux/capability.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>

namespace dormouse {
namespace {

namespace fs = std::filesystem;
constexpr std::size_t mib = 1u << 20;

// A folder that plays / for available_host_memory().
class Limits : public ::testing::Test {
   protected:
    void SetUp() override {
        std::string name = (fs::temp_directory_path() / "limits-XXXXXX").string();
        ASSERT_NE(mkdtemp(name.data()), nullptr);
        root = name;
    }
    void TearDown() override { fs::remove_all(root); }
    void put(const std::string& file, const std::string& text) const {
        fs::create_directories((root / file).parent_path());
        std::ofstream(root / file) << text;
    }
    void meminfo(std::size_t available) const {
        put("proc/meminfo",
            "MemTotal: 999999999 kB\nMemFree: 1 kB\nMemAvailable:  " + std::to_string(available / 1024) + " kB\n");
    }
    std::size_t available() const { return available_host_memory(root.string()); }
    fs::path root;
};

TEST_F(Limits, MemAvailableCountsWhenNoCgroupLimits) {
    meminfo(100 * mib);
    EXPECT_EQ(available(), 100 * mib);
    put("proc/self/cgroup", "0::/a\n");
    put("sys/fs/cgroup/a/memory.max", "max\n");
    put("sys/fs/cgroup/a/memory.current", "5\n");
    EXPECT_EQ(available(), 100 * mib);
}

TEST_F(Limits, NothingReadableLimitsNothing) {
    EXPECT_EQ(available(), unlimited);
    put("proc/meminfo", "MemAvailable: rubbish kB\n");
    put("proc/self/cgroup", "rubbish\n0:\n");
    EXPECT_EQ(available(), unlimited);
}

TEST_F(Limits, Version2TakesTheTightestGroupAbove) {
    meminfo(1000 * mib);
    put("proc/self/cgroup", "0::/pods/pod/box\n");
    put("sys/fs/cgroup/pods/pod/box/memory.max", std::to_string(300 * mib));
    put("sys/fs/cgroup/pods/pod/box/memory.current", std::to_string(100 * mib));
    EXPECT_EQ(available(), 200 * mib);
    put("sys/fs/cgroup/pods/memory.max", std::to_string(500 * mib));
    put("sys/fs/cgroup/pods/memory.current", std::to_string(450 * mib));
    EXPECT_EQ(available(), 50 * mib);
}

TEST_F(Limits, InactivePageCacheCountsAsRoom) {
    meminfo(1000 * mib);
    put("proc/self/cgroup", "0::/\n");
    put("sys/fs/cgroup/memory.max", std::to_string(300 * mib));
    put("sys/fs/cgroup/memory.current", std::to_string(290 * mib));
    put("sys/fs/cgroup/memory.stat", "anon 1\ninactive_file " + std::to_string(90 * mib) + "\nactive_file 7\n");
    EXPECT_EQ(available(), 100 * mib);
}

TEST_F(Limits, AGroupAboveItsLimitHasNoRoomAndDoesNotWrapAround) {
    meminfo(1000 * mib);
    put("proc/self/cgroup", "0::/\n");
    put("sys/fs/cgroup/memory.max", std::to_string(10 * mib));
    put("sys/fs/cgroup/memory.current", std::to_string(11 * mib));
    EXPECT_EQ(available(), 0u);
    put("sys/fs/cgroup/memory.stat", "inactive_file " + std::to_string(90 * mib) + "\n");
    EXPECT_EQ(available(), 10 * mib);
}

TEST_F(Limits, Version1IsReadFromTheMemoryController) {
    meminfo(1000 * mib);
    put("proc/self/cgroup", "9:cpu:/other\n4:hugetlb,memory:/box\n0::/\n");
    put("sys/fs/cgroup/memory/box/memory.limit_in_bytes", std::to_string(300 * mib));
    put("sys/fs/cgroup/memory/box/memory.usage_in_bytes", std::to_string(250 * mib));
    put("sys/fs/cgroup/memory/box/memory.stat", "inactive_file 1\ntotal_inactive_file " + std::to_string(30 * mib));
    EXPECT_EQ(available(), 80 * mib);
}

TEST_F(Limits, APathOfTheHostsViewEndsAtTheMount) {
    meminfo(1000 * mib);
    put("proc/self/cgroup", "4:memory:/docker/not-seen-from-inside\n");
    put("sys/fs/cgroup/memory/memory.limit_in_bytes", std::to_string(70 * mib));
    put("sys/fs/cgroup/memory/memory.usage_in_bytes", std::to_string(20 * mib));
    EXPECT_EQ(available(), 50 * mib);
}

TEST(HostLimits, ThisMachineHasSomeMemory) {
    EXPECT_GT(available_host_memory(), 0u);
    EXPECT_LT(available_host_memory(), unlimited);
}

// Runs `body` in a child without capabilities and with a memlock limit; its answer is the child's exit status.
int in_child_without_privileges(rlim_t memlock, const std::function<bool()>& body) {
    const pid_t child = fork();
    if (child == 0) {
        const rlimit limit{memlock, memlock};
        bool ok = setrlimit(RLIMIT_MEMLOCK, &limit) == 0;
        __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
        const __user_cap_data_struct none[2] = {};
        ok = ok && syscall(SYS_capset, &header, none) == 0;
        _exit(ok && body() ? 0 : 1);
    }
    int status = -1;
    waitpid(child, &status, 0);
    return status;
}

TEST(LockableMemory, IsTheLimitLessWhatIsLockedAlready) {
    rlimit limit{};
    ASSERT_EQ(getrlimit(RLIMIT_MEMLOCK, &limit), 0);
    const rlim_t memlock = std::min<rlim_t>(limit.rlim_max, 4 * mib);
    const std::size_t part = memlock / 4 / 4096 * 4096;
    if (part == 0) GTEST_SKIP() << "nothing may be locked here";
    const auto body = [&] {
        if (lockable_memory() != memlock) return false;
        void* locked = mmap(nullptr, part, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        // The system call itself: sanitizers make the library's mlock do nothing.
        return syscall(SYS_mlock, locked, part) == 0 && lockable_memory() == memlock - part;
    };
    EXPECT_EQ(in_child_without_privileges(memlock, body), 0);
}

TEST(LockableMemory, IsUnlimitedWithTheCapability) {
    std::ifstream in("/proc/self/status");
    std::string word, effective;
    while (in >> word)
        if (word == "CapEff:") in >> effective;
    if (!((std::stoull(effective, nullptr, 16) >> 14) & 1)) GTEST_SKIP() << "this process lacks CAP_IPC_LOCK";
    EXPECT_EQ(lockable_memory(), unlimited);
}

}  // namespace
}  // namespace dormouse
