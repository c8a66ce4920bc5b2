// The driver whose device is RAM: for engines on CPUs, for laptops and for tests.
//
// Physical memory is a number in the books; pages come when mapped memory is first written, and go at unmap, so RSS
// falls by what slept. (Hence content does not outlive its mapping, as it would on a device that maps the same
// physical memory twice.) Memory that is not mapped and allowed faults. The device's address space is the process's
// own and, like a GPU's, is not there in a forked child.
//
// Copies happen at once on the calling thread, so a stream is only a token. Plain RAM needs no pinning: pin() agrees
// to everything and locks nothing. All calls are thread-safe; nothing slow runs under the lock.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <map>
#include <mutex>
#include <set>
#include <system_error>
#include <vector>

#include "address_space.hpp"
#include "dormouse/digest.hpp"
#include "dormouse/error.hpp"
#include "dormouse/limits.hpp"
#include "drivers/books.hpp"
#include "drivers/side_by_side.hpp"

#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24
#endif

namespace dormouse {

namespace {

constexpr std::size_t huge_page = std::size_t{2} << 20;
// A digest or copy of less is done before a thread has started.
constexpr std::size_t worth_threads = std::size_t{8} << 20;
constexpr std::size_t digest_piece = std::size_t{2} << 20;
constexpr std::size_t copy_piece = std::size_t{4} << 20;

std::size_t installed_memory() {
    return static_cast<std::size_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
}

void* pointer(Address address) {
    return reinterpret_cast<void*>(address);
}

class HostDriver final : public Driver {
   public:
    explicit HostDriver(const DriverOptions& options)
        : limited_by_host_(options.capacity == 0),
          books_("host", huge_page, limited_by_host_ ? installed_memory() / 4 * 3 : options.capacity) {}

    ~HostDriver() override {
        for (const auto& [address, bytes] : books_.reservations()) {
            unreserve_addresses(pointer(address), bytes);
        }
        for (const auto& [address, bytes] : host_blocks_) {
            posix_memory().unreserve(address, bytes);
        }
    }

    std::string_view name() const noexcept override { return "host"; }
    std::string version() override { return "1"; }
    std::string uuid() override { return {}; }
    std::size_t granularity() override { return huge_page; }

    // With the default capacity also what the machine has left, since other processes live in the same RAM.
    MemoryInfo memory() override {
        const std::size_t rest = limited_by_host_ ? available_host_memory() : unlimited;
        const std::lock_guard lock(mutex_);
        return {std::min(books_.capacity() - books_.created(), rest), books_.capacity()};
    }

    Address reserve(std::size_t bytes) override {
        books_.check_size("reserve", bytes);
        void* address = nullptr;
        try {
            address = reserve_addresses(bytes, PROT_NONE);
        } catch (const error& failure) {
            books_.refuse("reserve", ENOMEM, failure.what());
        }
        const std::lock_guard lock(mutex_);
        books_.reserve(reinterpret_cast<Address>(address), bytes);
        return reinterpret_cast<Address>(address);
    }

    void unreserve(Address address, std::size_t bytes) override {
        const std::lock_guard lock(mutex_);
        books_.unreserve(address, bytes);
        unreserve_addresses(pointer(address), bytes);
    }

    Physical create(std::size_t bytes) override {
        const std::size_t rest = limited_by_host_ ? available_host_memory() : unlimited;
        if (bytes > rest) {
            throw out_of_memory(bytes, rest, "host.create");
        }
        const std::lock_guard lock(mutex_);
        return books_.create(bytes);
    }

    void release(Physical physical) override {
        const std::lock_guard lock(mutex_);
        books_.release(physical);
    }

    bool mapping_keeps_memory() noexcept override { return true; }

    void map(Address address, std::size_t bytes, Physical physical) override {
        const std::lock_guard lock(mutex_);
        books_.map(address, bytes, physical);
    }

    void allow(Address address, std::size_t bytes) override {
        const std::lock_guard lock(mutex_);
        books_.check_allow(address, bytes);
        if (mprotect(pointer(address), bytes, PROT_READ | PROT_WRITE) != 0) {
            refuse("allow");
        }
        books_.allow(address, bytes);
    }

    // Giving pages back takes a while, so it runs between the check and the entry, without the lock: nobody may map
    // there before unmap has returned.
    void unmap(Address address, std::size_t bytes) override {
        {
            const std::lock_guard lock(mutex_);
            books_.check_unmap(address, bytes);
        }
        if (mprotect(pointer(address), bytes, PROT_NONE) != 0) {
            refuse("unmap");
        }
        // Memory locked by mlockall needs the second way.
        if (madvise(pointer(address), bytes, MADV_DONTNEED) != 0 &&
            madvise(pointer(address), bytes, MADV_DONTNEED_LOCKED) != 0) {
            const int code = errno;
            mprotect(pointer(address), bytes, PROT_READ | PROT_WRITE);
            errno = code;
            refuse("unmap");
        }
        const std::lock_guard lock(mutex_);
        books_.unmap(address, bytes);
    }

    Stream create_stream(Priority /*priority*/) override {
        const std::lock_guard lock(mutex_);
        return reinterpret_cast<Stream>(*streams_.insert(next_stream_++).first);
    }

    void destroy_stream(Stream stream) noexcept override {
        const std::lock_guard lock(mutex_);
        streams_.erase(reinterpret_cast<std::uintptr_t>(stream));
    }

    void copy_to_device(Address to, const void* from, std::size_t bytes, Stream stream) override {
        check("copy_to_device", to, bytes, stream);
        copy(pointer(to), from, bytes);
    }

    void copy_to_host(void* to, Address from, std::size_t bytes, Stream stream) override {
        check("copy_to_host", from, bytes, stream);
        copy(to, pointer(from), bytes);
    }

    void synchronize(Stream stream) override { check("synchronize", 0, 0, stream); }
    void synchronize_device() override {}

    HostMemory& host() override { return posix_memory(); }
    bool can_pin() noexcept override { return true; }
    void pin(void* /*address*/, std::size_t /*bytes*/) override {}
    void unpin(void* /*address*/, std::size_t /*bytes*/) override {}

    void* host_alloc(std::size_t bytes) override {
        void* address = posix_memory().reserve(bytes);
        try {
            posix_memory().commit(address, bytes);
            const std::lock_guard lock(mutex_);
            host_blocks_.emplace(address, bytes);
        } catch (...) {
            posix_memory().unreserve(address, bytes);
            throw;
        }
        return address;
    }

    void host_free(void* address) override {
        const std::lock_guard lock(mutex_);
        const auto it = host_blocks_.find(address);
        if (it == host_blocks_.end()) {
            books_.refuse("host_free", EINVAL, "host_alloc did not give this address");
        }
        posix_memory().unreserve(address, it->second);
        host_blocks_.erase(it);
    }

    bool copies_pageable() noexcept override { return true; }
    bool can_digest() noexcept override { return true; }
    void digest(std::span<const Range> ranges, std::span<std::uint64_t> out, Stream stream) override;

   private:
    [[noreturn]] void refuse(std::string_view call) {
        const int code = errno;
        books_.refuse(call, code, std::system_category().message(code));
    }

    // One core moves half of what the memory can, or less.
    static void copy(void* to, const void* from, std::size_t bytes) noexcept {
        if (bytes < worth_threads) {
            std::memcpy(to, from, bytes);
            return;
        }
        side_by_side((bytes + copy_piece - 1) / copy_piece, [=](std::size_t i) noexcept {
            const std::size_t begin = i * copy_piece;
            std::memcpy(static_cast<char*>(to) + begin, static_cast<const char*>(from) + begin,
                        std::min(copy_piece, bytes - begin));
        });
    }

    void check(std::string_view call, Address address, std::size_t bytes, Stream stream) {
        const std::lock_guard lock(mutex_);
        if (stream != nullptr && !streams_.contains(reinterpret_cast<std::uintptr_t>(stream))) {
            books_.refuse(call, EINVAL, "unknown stream");
        }
        books_.check_access(call, address, bytes);
    }

    const bool limited_by_host_;
    std::mutex mutex_;
    Books books_;
    std::set<std::uintptr_t> streams_;
    std::uintptr_t next_stream_ = 1;
    std::map<void*, std::size_t> host_blocks_;
};

// A digest is a sum, so threads take the next piece of any range and add what they find.
void HostDriver::digest(std::span<const Range> ranges, std::span<std::uint64_t> out, Stream stream) {
    if (ranges.size() != out.size()) {
        books_.refuse("digest", EINVAL, "as many results as ranges are needed");
    }
    struct Piece {
        std::size_t range, offset, bytes;
    };
    std::vector<Piece> pieces;
    std::size_t total = 0;
    for (std::size_t i = 0; i < ranges.size(); ++i) {
        if (ranges[i].bytes % 16 != 0 || ranges[i].address % 8 != 0) {
            books_.refuse("digest", EINVAL, "a range is not aligned");
        }
        check("digest", ranges[i].address, ranges[i].bytes, stream);
        for (std::size_t at = 0; at < ranges[i].bytes; at += digest_piece) {
            pieces.push_back({i, at, std::min(digest_piece, ranges[i].bytes - at)});
        }
        total += ranges[i].bytes;
    }
    std::vector<std::atomic<std::uint64_t>> sums(ranges.size());
    const auto add = [&](std::size_t i) noexcept {
        const Piece& piece = pieces[i];
        sums[piece.range] += digest_of(pointer(ranges[piece.range].address + piece.offset), piece.bytes,
                                       piece.offset / sizeof(std::uint64_t));
    };
    if (total < worth_threads) {
        for (std::size_t i = 0; i < pieces.size(); ++i) {
            add(i);
        }
    } else {
        side_by_side(pieces.size(), add);
    }
    std::copy(sums.begin(), sums.end(), out.begin());
}

}  // namespace

std::unique_ptr<Driver> make_host_driver(const DriverOptions& options) {
    return std::make_unique<HostDriver>(options);
}

}  // namespace dormouse
