#include "support/rig.hpp"

#include <gtest/gtest.h>

#include "dormouse/limits.hpp"

namespace dormouse::testing {

namespace {

// The fakes lock nothing, but the store believes RLIMIT_MEMLOCK: where that is low, "auto" takes the ring.
std::string possible(const std::string& store) {
    const bool low = lockable_memory() < 256 * MiB;
    return store == "registered" && low ? "auto" : store;
}

}  // namespace

Rig::Rig(const Kind& kind, const PoolOptions& options, std::size_t capacity, std::size_t granularity, Clock* clock) {
    steering->clock = clock;
    DriverOptions wanted;
    wanted.capacity = capacity;
    if (kind.driver != std::string("host")) {
        fake = kind.driver == std::string("cuda") ? &FakeLibrary::cuda() : &FakeLibrary::acl();
        fake->reset(capacity);
        if (granularity != 0) {
            fake->granularity(granularity);
        }
        wanted.library = fake->path;
    }
    PoolOptions chosen = options;
    chosen.store.kind = possible(kind.store);
    std::unique_ptr<Driver> driver = make_driver(kind.driver, wanted);
    real_ = driver.get();
    digests = driver->can_digest();
    pool = std::make_unique<Pool>(std::make_unique<SteeredDriver>(std::move(driver), steering), 0, chosen);
}

Rig::~Rig() {
    close();
}

void Rig::close() {
    if (!pool) {
        return;
    }
    squat(0);
    const unsigned long broken = fake != nullptr ? fake->violations() : 0;
    EXPECT_EQ(broken, 0U) << (fake != nullptr ? fake->last_violation() : "");
    pool.reset();
    if (fake != nullptr) {
        // A lost stream is one more thing that outlives the context.
        const unsigned long excused = may_lose && fake->live("streams") != 0 ? 1 : 0;
        EXPECT_LE(fake->violations(), broken + excused) << fake->last_violation();
        for (const char* what : {"handles", "mappings", "bytes"}) {
            EXPECT_EQ(fake->live(what), 0U) << what << " leaked";
        }
        for (const char* what : {"reservations", "pinned", "streams", "host"}) {
            EXPECT_TRUE(may_lose || fake->live(what) == 0U) << fake->live(what) << " " << what << " leaked";
        }
    }
}

Written Rig::write(std::size_t bytes, const std::string& tag) {
    Written written;
    written.address = pool->malloc(bytes, tag);
    written.bytes = pool->size_of(written.address);
    rewrite(written);
    return written;
}

void Rig::rewrite(Written& written) {
    written.digest = fill(written.address, written.bytes, ++seed_);
}

void Rig::squat(std::size_t bytes) {
    if (fake != nullptr) {
        fake->squat(bytes);
        return;
    }
    if (squatter_ != 0) {
        real_->release(squatter_);
        squatter_ = 0;
    }
    if (bytes != 0) {
        squatter_ = real_->create(bytes);
    }
}

TagStats Rig::tag(const std::string& name) const {
    return pool->stats().tags.at(name);
}

}  // namespace dormouse::testing
