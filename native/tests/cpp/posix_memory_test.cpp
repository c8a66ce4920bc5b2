#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <functional>

#include "dormouse/error.hpp"
#include "dormouse/host_memory.hpp"
#include "populate.hpp"

namespace dormouse {
namespace {

constexpr std::size_t mib = std::size_t{1} << 20;

std::size_t resident_bytes() {
    std::ifstream statm("/proc/self/statm");
    std::size_t size = 0, resident = 0;
    statm >> size >> resident;
    return resident * static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
}

struct Reservation {
    explicit Reservation(std::size_t size) : bytes(size), address(posix_memory().reserve(size)) {}
    ~Reservation() { posix_memory().unreserve(address, bytes); }
    Reservation(const Reservation&) = delete;
    Reservation& operator=(const Reservation&) = delete;
    char* at(std::size_t offset) const { return static_cast<char*>(address) + offset; }

    std::size_t bytes;
    void* address;
};

// What a forked child answers: its exit status, or minus the signal that killed it.
int in_child(const std::function<int()>& body) {
    const pid_t child = fork();
    if (child == 0) {
        _exit(body());
    }
    int status = 0;
    waitpid(child, &status, 0);
    return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

TEST(PosixMemory, ReservationIsAlignedAndCostsNoPages) {
    const auto before = resident_bytes();
    const Reservation big(std::size_t{64} << 30);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(big.address) % (2 * mib), 0U);
    EXPECT_LT(resident_bytes(), before + mib);
}

TEST(PosixMemory, ReservationsDoNotOverlapWhateverTheirSize) {
    const Reservation a(4096), b(3 * mib + 1), c(2 * mib);
    for (const auto* one : {&a, &b, &c}) {
        EXPECT_EQ(reinterpret_cast<std::uintptr_t>(one->address) % (2 * mib), 0U);
        posix_memory().commit(one->address, one->bytes);
        std::memset(one->address, 1, one->bytes);
    }
}

TEST(PosixMemory, CommitMakesPagesResidentAndDecommitGivesThemBack) {
    const Reservation memory(64 * mib);
    const auto before = resident_bytes();
    posix_memory().commit(memory.address, 64 * mib);
    EXPECT_GE(resident_bytes(), before + 63 * mib);
    std::memset(memory.address, 7, 64 * mib);
    posix_memory().decommit(memory.address, 64 * mib);
    EXPECT_LT(resident_bytes(), before + 2 * mib);
    // Back again: fresh pages, not the old ones.
    posix_memory().commit(memory.at(2 * mib), 4 * mib);
    EXPECT_EQ(*memory.at(2 * mib), 0);
    EXPECT_EQ(*memory.at(6 * mib - 1), 0);
}

TEST(PosixMemory, CommitOfCommittedMemoryKeepsItsBytes) {
    const Reservation memory(4 * mib);
    posix_memory().commit(memory.address, 4 * mib);
    std::memset(memory.address, 42, 4 * mib);
    posix_memory().commit(memory.address, 4 * mib);
    EXPECT_EQ(*memory.at(0), 42);
    EXPECT_EQ(*memory.at(4 * mib - 1), 42);
}

TEST(PosixMemory, UncommittedMemoryFaults) {
    const Reservation memory(4 * mib);
    posix_memory().commit(memory.address, 2 * mib);
    const auto read = [&](std::size_t offset) { return static_cast<volatile char*>(memory.address)[offset]; };
    EXPECT_EXIT(read(2 * mib), testing::KilledBySignal(SIGSEGV), "");
    posix_memory().decommit(memory.address, 2 * mib);
    EXPECT_EXIT(read(0), testing::KilledBySignal(SIGSEGV), "");
}

TEST(PosixMemory, AForkedChildDoesNotHaveTheMemory) {
    const Reservation memory(4 * mib);
    posix_memory().commit(memory.address, 4 * mib);
    unsigned char there = 0;
    EXPECT_EQ(mincore(memory.address, 4096, &there), 0) << "the parent has it";
    const int answer = in_child([&] { return mincore(memory.address, 4096, &there) == -1 && errno == ENOMEM ? 3 : 4; });
    EXPECT_EQ(answer, 3);
}

TEST(PosixMemory, CopyMovesBytes) {
    const Reservation memory(2 * mib);
    posix_memory().commit(memory.address, 2 * mib);
    std::memset(memory.address, 5, mib);
    posix_memory().copy(memory.at(mib), memory.at(0), mib);
    EXPECT_EQ(std::memcmp(memory.at(0), memory.at(mib), mib), 0);
}

TEST(PosixMemory, NoBytesAreAnInvalidArgument) {
    EXPECT_THROW(posix_memory().reserve(0), invalid_argument);
    EXPECT_THROW(posix_memory().reserve(~std::size_t{0}), invalid_argument);
}

TEST(PosixMemory, AReservationThatDoesNotFitIsHostOutOfMemory) {
    EXPECT_THROW(posix_memory().reserve(std::size_t{1} << 60), host_out_of_memory);
}

// RLIMIT_DATA counts writable private memory, so the kernel refuses the commit with ENOMEM.
TEST(PosixMemory, ARefusedCommitIsHostOutOfMemoryAndTheRangeStaysReserved) {
    const int answer = in_child([] {
        void* address = posix_memory().reserve(1024 * mib);
        const rlimit limit{256 * mib, 256 * mib};
        if (setrlimit(RLIMIT_DATA, &limit) != 0) {
            return 2;
        }
        try {
            posix_memory().commit(address, 1024 * mib);
            return 4;
        } catch (const host_out_of_memory& failure) {
            if (failure.needed != 1024 * mib) {
                return 5;
            }
        }
        posix_memory().commit(address, 2 * mib);
        return *static_cast<char*>(address) == 0 ? 3 : 6;
    });
    EXPECT_EQ(answer, 3);
}

// populate(), with kernels played by functions.

int calls = 0;

int old_kernel(void* /*address*/, std::size_t /*bytes*/, int /*advice*/) {
    ++calls;
    errno = EINVAL;
    return -1;
}

int interrupted_once(void* /*address*/, std::size_t /*bytes*/, int /*advice*/) {
    errno = EINTR;
    return calls++ == 0 ? -1 : 0;
}

template <int code>
int second_step_fails(void* /*address*/, std::size_t /*bytes*/, int /*advice*/) {
    errno = code;
    return calls++ == 1 ? -1 : 0;
}

TEST(Populate, AnOldKernelsPagesAreTouchedByHand) {
    void* raw = mmap(nullptr, 8 * mib, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ASSERT_NE(raw, MAP_FAILED);
    *static_cast<char*>(raw) = 9;
    calls = 0;
    const auto before = resident_bytes();
    EXPECT_EQ(populate(raw, 8 * mib, &old_kernel), 0);
    EXPECT_GE(resident_bytes(), before + 7 * mib);
    EXPECT_EQ(*static_cast<char*>(raw), 9);
    EXPECT_EQ(calls, 1);
    munmap(raw, 8 * mib);
}

TEST(Populate, AnInterruptedStepIsTriedAgain) {
    calls = 0;
    EXPECT_EQ(populate(nullptr, 4 * mib, &interrupted_once), 0);
    EXPECT_EQ(calls, 2);
}

TEST(Populate, WhatTheKernelRefusesIsReportedAtOnce) {
    calls = 0;
    EXPECT_EQ(populate(nullptr, 1024 * mib, &second_step_fails<ENOMEM>), ENOMEM);
    EXPECT_EQ(calls, 2);
    calls = 0;
    EXPECT_EQ(populate(nullptr, 1024 * mib, &second_step_fails<EFAULT>), EFAULT);
    calls = 0;
    EXPECT_EQ(populate(nullptr, 1024 * mib, &second_step_fails<EHWPOISON>), EHWPOISON);
}

}  // namespace
}  // namespace dormouse
