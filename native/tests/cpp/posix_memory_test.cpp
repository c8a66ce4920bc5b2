#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include <cerrno>
#include <cstdint>
#include <cstring>

#include "dormouse/error.hpp"
#include "dormouse/host_memory.hpp"
#include "process_memory.hpp"

namespace dormouse {
namespace {

constexpr std::size_t mib = std::size_t{1} << 20;

struct Reservation {
    explicit Reservation(std::size_t size) : bytes(size), address(posix_memory().reserve(size)) {}
    ~Reservation() { posix_memory().unreserve(address, bytes); }
    Reservation(const Reservation&) = delete;
    Reservation& operator=(const Reservation&) = delete;
    char* at(std::size_t offset) const { return static_cast<char*>(address) + offset; }

    std::size_t bytes;
    void* address;
};

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
    EXPECT_EQ(resident_in(memory.address, 64 * mib), 0U);
    posix_memory().commit(memory.address, 64 * mib);
    EXPECT_EQ(resident_in(memory.address, 64 * mib), 64 * mib);
    *memory.at(2 * mib) = 7;
    posix_memory().decommit(memory.address, 64 * mib);
    EXPECT_EQ(resident_in(memory.address, 64 * mib), 0U);
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

TEST(PosixMemory, AForkedChildDoesNotHaveTheMemory) {
    const Reservation memory(4 * mib);
    posix_memory().commit(memory.address, 4 * mib);
    *memory.at(mib) = 42;
    EXPECT_EQ(peek(memory.at(mib)), 42) << "the parent has it";
    EXPECT_EQ(in_child([&] { return peek(memory.at(mib)) == 42 ? 4 : 3; }), 3);
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

// RLIMIT_DATA counts writable private memory, so the kernel refuses the reservation with ENOMEM.
TEST(PosixMemory, AReservationBeyondALimitOfTheProcessIsHostOutOfMemory) {
    const int answer = in_child([] {
        const std::size_t allowed = data_bytes() + 256 * mib;
        const rlimit limit{allowed, allowed};
        if (setrlimit(RLIMIT_DATA, &limit) != 0) {
            return 2;
        }
        try {
            posix_memory().reserve(1024 * mib);
            return 4;
        } catch (const host_out_of_memory& failure) {
            return failure.needed == 1024 * mib ? 3 : 5;
        }
    });
    EXPECT_EQ(answer, 3);
}

}  // namespace
}  // namespace dormouse
