// What the kernel says of this process's memory. Nothing here touches memory from user space: builds with a sanitizer
// keep shadow pages of every access, and their handlers get in between a fault and the test.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstddef>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

namespace dormouse {

// RSS in bytes.
inline std::size_t resident_bytes() {
    std::ifstream statm("/proc/self/statm");
    std::size_t size = 0, resident = 0;
    statm >> size >> resident;
    return resident * static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
}

// Bytes of a range that have pages. (RSS would count a sanitizer's shadow of them too.)
inline std::size_t resident_in(void* address, std::size_t bytes) {
    const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    std::vector<unsigned char> pages(bytes / page);
    if (mincore(address, bytes, pages.data()) != 0) {
        return ~std::size_t{0};
    }
    std::size_t count = 0;
    for (const unsigned char resident : pages) {
        count += resident & 1U;
    }
    return count * page;
}

// Private writable memory in bytes: what RLIMIT_DATA counts.
inline std::size_t data_bytes() {
    std::ifstream status("/proc/self/status");
    std::string word;
    while (status >> word && word != "VmData:") {
    }
    std::size_t kib = 0;
    status >> kib;
    return kib << 10;
}

// The byte at `address`, or -1 where reading it would fault.
inline int peek(const void* address) {
    unsigned char byte = 0;
    const iovec to{&byte, 1}, from{const_cast<void*>(address), 1};
    return syscall(SYS_process_vm_readv, getpid(), &to, 1UL, &from, 1UL, 0UL) == 1 ? byte : -1;
}

// Writes zeros; false where that would fault.
inline bool write_zeros(void* address, std::size_t bytes) {
    const int zeros = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    const auto got = syscall(SYS_read, zeros, address, bytes);
    close(zeros);
    return got == static_cast<long>(bytes);
}

// What a forked child answers: its exit status, 99 for an exception, or minus the signal that killed it.
inline int in_child(const std::function<int()>& body) {
    const pid_t child = fork();
    if (child == 0) {
        int answer = 99;
        try {
            answer = body();
        } catch (...) {
        }
        _exit(answer);
    }
    int status = 0;
    waitpid(child, &status, 0);
    return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

}  // namespace dormouse
