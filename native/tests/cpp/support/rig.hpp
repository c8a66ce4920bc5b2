// A pool on a device of a chosen kind, small enough to be quick, with all the handles that a test needs.
#pragma once

#include <memory>
#include <ostream>
#include <string>

#include "dormouse/pool.hpp"
#include "support/content.hpp"
#include "support/fake_library.hpp"
#include "support/steered_driver.hpp"

namespace dormouse::testing {

inline constexpr std::size_t MiB = std::size_t{1} << 20;

struct Kind {
    const char* name;
    const char* driver;
    const char* store;
};
// For test names.
inline std::ostream& operator<<(std::ostream& out, const Kind& kind) {
    return out << kind.name;
}

inline constexpr Kind on_host{"host", "host", "registered"};
inline constexpr Kind on_cuda{"cuda_registered", "cuda", "registered"};
inline constexpr Kind on_cuda_ring{"cuda_ring", "cuda", "ring"};
inline constexpr Kind on_acl{"acl_registered", "acl", "registered"};
inline constexpr Kind on_acl_ring{"acl_ring", "acl", "ring"};

// Chunks of 4 MiB, grains of 1; of kv_cache up to 4 MiB is kept.
inline PoolOptions small_pool() {
    PoolOptions options;
    options.chunk_bytes = 4 * MiB;
    options.grain_bytes = MiB;
    options.keep_up_to = 4 * MiB;
    options.store.threads = 2;
    options.store.ring_buffer = MiB;
    options.retry_seconds = 0.001;
    options.collect_seconds = 0;  // nobody but the test makes calls
    return options;
}

// An allocation and the digest of what was last written to it.
struct Written {
    Address address = 0;
    std::size_t bytes = 0;
    std::uint64_t digest = 0;
    bool intact() const { return digest_at(address, bytes) == digest; }
};

class Rig {
   public:
    // `granularity` is the fakes'; 0 leaves the real one. `clock` stands in for the driver's.
    explicit Rig(const Kind& kind, const PoolOptions& options = small_pool(), std::size_t capacity = 256 * MiB,
                 std::size_t granularity = 0, Clock* clock = nullptr);
    ~Rig();
    Rig(const Rig&) = delete;
    Rig& operator=(const Rig&) = delete;

    Pool* operator->() const { return pool.get(); }

    // Allocates and fills all of it, behind the asked bytes too.
    Written write(std::size_t bytes, const std::string& tag);
    void rewrite(Written& written);
    // Somebody else takes so much of the device.
    void squat(std::size_t bytes);
    std::size_t mapped() const { return pool->stats().mapped_bytes; }
    TagStats tag(const std::string& name) const;
    TagState state(const std::string& name) const { return tag(name).state; }

    FakeLibrary* fake = nullptr;  // null on the host driver
    std::shared_ptr<Steering> steering = std::make_shared<Steering>();
    std::unique_ptr<Pool> pool;
    bool digests = false;  // the device makes digests
    // Ends the pool and looks for broken rules and leaks.
    void close();
    // A call that gives something back was made to fail: what it should have given back is lost, but no device memory.
    bool may_lose = false;

   private:
    Driver* real_ = nullptr;
    std::uint64_t seed_ = 0;
    Physical squatter_ = 0;
};

}  // namespace dormouse::testing
