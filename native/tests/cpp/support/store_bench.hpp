// A store over an unruly driver, with device memory to fill, scramble and compare.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "dormouse/backup.hpp"
#include "stores/arena_store.hpp"
#include "support/unruly_driver.hpp"

namespace dormouse {

// Device memory in one mapping; on this driver the test can read and write it directly.
class DeviceBytes {
   public:
    DeviceBytes(Driver& driver, std::size_t bytes)
        : driver_(driver), bytes_(bytes), address_(driver.reserve(bytes)), physical_(driver.create(bytes)) {
        driver_.map(address_, bytes_, physical_);
        driver_.allow(address_, bytes_);
    }
    ~DeviceBytes() {
        driver_.unmap(address_, bytes_);
        driver_.release(physical_);
        driver_.unreserve(address_, bytes_);
    }
    DeviceBytes(const DeviceBytes&) = delete;
    DeviceBytes& operator=(const DeviceBytes&) = delete;

    Address address() const { return address_; }
    std::size_t bytes() const { return bytes_; }
    void fill(std::uint64_t salt) {
        for (std::size_t i = 0; i < words().size(); ++i) {
            words()[i] = word(i, salt);
        }
    }
    // Whether [from, from + bytes) still is what fill(salt) wrote; whole words.
    bool holds(std::uint64_t salt, std::size_t from = 0, std::size_t bytes = ~std::size_t{0}) const {
        const std::size_t end = std::min(bytes_, bytes == ~std::size_t{0} ? bytes_ : from + bytes);
        for (std::size_t i = from / 8; i < end / 8; ++i) {
            if (words()[i] != word(i, salt)) {
                return false;
            }
        }
        return true;
    }

   private:
    static std::uint64_t word(std::size_t i, std::uint64_t salt) { return (i + 1) * 0x9E3779B97F4A7C15ULL ^ salt; }
    std::span<std::uint64_t> words() const { return {reinterpret_cast<std::uint64_t*>(address_), bytes_ / 8}; }

    Driver& driver_;
    std::size_t bytes_;
    Address address_;
    Physical physical_;
};

class StoreBench {
   public:
    static constexpr std::size_t mib = std::size_t{1} << 20;

    explicit StoreBench(const std::string& kind, bool pageable = false, unsigned threads = 3) : driver(pageable) {
        options.kind = kind;
        options.threads = threads;
        options.ring_buffer = mib;
    }

    ArenaStore& store() {
        if (!store_) {
            store_ = std::make_unique<ArenaStore>(driver, options, [this] { return lockable; });
        }
        return *store_;
    }
    Slot book(std::size_t bytes) { return store().reserve(std::vector{bytes}).at(0); }
    void offload(const DeviceBytes& device, std::span<const Slot> slots) {
        move(*store().offload(Priority::normal), device, slots);
    }
    void restore(const DeviceBytes& device, std::span<const Slot> slots) { move(*store().restore(), device, slots); }
    // The device's memory in equal parts, one for each slot.
    static void move(Transfer& transfer, const DeviceBytes& device, std::span<const Slot> slots) {
        const std::size_t part = device.bytes() / slots.size();
        for (std::size_t i = 0; i < slots.size(); ++i) {
            transfer.add({device.address() + i * part, part, slots[i], 0});
        }
        transfer.finish();
    }
    // Ends the store; everything it held must be gone.
    void expect_nothing_left() {
        store_.reset();
        EXPECT_EQ(driver.pinned(), 0u);
        EXPECT_EQ(driver.memory_of_host().committed(), 0u);
        EXPECT_EQ(driver.memory_of_host().address_space, 0u);
        EXPECT_EQ(driver.violations, 0u);
    }

    UnrulyDriver driver;
    StoreOptions options;
    std::size_t lockable = unlimited;

   private:
    std::unique_ptr<ArenaStore> store_;
};

}  // namespace dormouse
