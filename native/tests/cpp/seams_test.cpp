// A pool between two strangers: memory that is lent and never created by the pool, and backups in another code. The
// pipelines move chunks through both without knowing which.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <map>
#include <set>
#include <span>
#include <vector>

#include "dormouse/error.hpp"
#include "support/rig.hpp"

namespace dormouse {
namespace {

using namespace dormouse::testing;

// Memory of an owner who creates it once and keeps it; what is not lent lies on a shelf.
class Lender final : public DeviceMemory {
   public:
    Lender(Driver& driver, std::size_t bytes) : budget(bytes), driver_(driver) {}
    ~Lender() override {
        for (const auto& [bytes, physical] : shelf_) {
            driver_.release(physical);
        }
    }
    Physical take(Address place, std::size_t bytes) override {
        if (lent + bytes > budget) {
            throw out_of_memory(bytes, available(), "the lender has no more");
        }
        if (const auto idle = shelf_.find(bytes); idle != shelf_.end()) {
            loans_.emplace(place, idle->second);
            shelf_.erase(idle);
        } else {
            loans_.emplace(place, driver_.create(bytes));
            ++created;
        }
        lent += bytes;
        handles.insert(loans_.at(place));
        return loans_.at(place);
    }
    // The owner's own handle stays; an import of it would be released here.
    void let_go(Physical physical) override {
        if (refuses) {
            throw driver_error("let_go", 999, "injected");
        }
        EXPECT_EQ(handles.erase(physical), 1U) << "let go twice";
    }
    void returned(Address place, std::size_t bytes) noexcept override {
        EXPECT_FALSE(handles.contains(loans_.at(place))) << "memory came back whose handle is still out";
        lent -= bytes;
        shelf_.emplace(bytes, loans_.extract(place).mapped());
    }
    std::size_t available() override { return budget - std::min(budget, lent); }

    std::size_t budget;
    std::size_t lent = 0;
    std::set<Physical> handles;  // that were taken and not let go
    bool refuses = false;
    int created = 0;

   private:
    Driver& driver_;
    std::map<Address, Physical> loans_;
    std::multimap<std::size_t, Physical> shelf_;
};

// Keeps every byte inverted, in memory that no driver ever sees, and moves it through one buffer that it has seen.
class InvertedStore final : public BackupStore {
   public:
    explicit InvertedStore(Driver& driver) : driver_(driver), buffer_(driver.host_alloc(buffer_bytes)) {}
    ~InvertedStore() override { driver_.host_free(buffer_); }

    std::vector<Slot> reserve(std::span<const std::size_t> sizes) override {
        if (refuses && !sizes.empty()) {
            throw host_out_of_memory(sizes.front(), 0, "the store is full");
        }
        std::vector<Slot> slots;
        for (const std::size_t bytes : sizes) {
            kept.emplace(++last_, std::vector<unsigned char>(bytes));
            slots.push_back(last_);
        }
        return slots;
    }
    void release(Slot slot) noexcept override { kept.erase(slot); }
    void drain() noexcept override {}
    void prepare(Slot, std::stop_token) override {}
    std::uint64_t digest(Slot slot, std::size_t offset, std::size_t bytes) override {
        std::vector<std::uint64_t> plain(bytes / sizeof(std::uint64_t));
        std::memcpy(plain.data(), kept.at(slot).data() + offset, bytes);
        std::transform(plain.begin(), plain.end(), plain.begin(), std::bit_not<>());
        return digest_of(plain.data(), bytes, offset / sizeof(std::uint64_t));
    }
    std::unique_ptr<Transfer> offload(Priority priority) override {
        return std::make_unique<Move>(*this, false, priority);
    }
    std::unique_ptr<Transfer> restore() override { return std::make_unique<Move>(*this, true, Priority::normal); }
    StoreStats stats() override {
        return {.kind = "inverted", .reason = "", .reserved = 0, .committed = 0, .pinned = 0, .pulls = false};
    }

    std::map<Slot, std::vector<unsigned char>> kept;
    std::vector<Address> restored;  // in the order in which it was asked
    bool refuses = false;

   private:
    static constexpr std::size_t buffer_bytes = MiB;

    class Move final : public Transfer {
       public:
        Move(InvertedStore& store, bool up, Priority priority)
            : store_(store), up_(up), stream_(store.driver_.create_stream(priority)) {}
        ~Move() override { store_.driver_.destroy_stream(stream_); }

        void add(const Piece& piece) override {
            if (up_) {
                store_.restored.push_back(piece.device);
            }
            unsigned char* const code = store_.kept.at(piece.slot).data() + piece.offset;
            auto* const plain = static_cast<unsigned char*>(store_.buffer_);
            for (std::size_t done = 0; done < piece.bytes; done += buffer_bytes) {
                const std::size_t bytes = std::min(buffer_bytes, piece.bytes - done);
                if (up_) {
                    invert(plain, code + done, bytes);
                    store_.driver_.copy_to_device(piece.device + done, plain, bytes, stream_);
                } else {
                    store_.driver_.copy_to_host(plain, piece.device + done, bytes, stream_);
                }
                store_.driver_.synchronize(stream_);
                if (!up_) {
                    invert(code + done, plain, bytes);
                }
            }
        }
        void finish() override {}

       private:
        static void invert(unsigned char* to, const unsigned char* from, std::size_t bytes) {
            for (std::size_t i = 0; i < bytes; ++i) {
                to[i] = static_cast<unsigned char>(~from[i]);
            }
        }
        InvertedStore& store_;
        bool up_;
        Stream stream_;
    };

    Driver& driver_;
    void* buffer_;
    Slot last_ = no_slot;
};

class SeamsTest : public ::testing::TestWithParam<Kind> {
   protected:
    static constexpr std::size_t budget = 32 * MiB;

    SeamsTest() {
        DriverOptions wanted;
        wanted.capacity = 64 * MiB;
        if (GetParam().driver == std::string("cuda")) {
            FakeLibrary::cuda().reset(wanted.capacity);
            wanted.library = FakeLibrary::cuda().path;
        }
        const Seams seams{.memory =
                              [this](Driver& driver) {
                                  auto made = std::make_unique<Lender>(driver, budget);
                                  lender = made.get();
                                  return made;
                              },
                          .store =
                              [this](Driver& driver) {
                                  auto made = std::make_unique<InvertedStore>(driver);
                                  store = made.get();
                                  return made;
                              }};
        pool = std::make_unique<Pool>(make_driver(GetParam().driver, wanted), 0, small_pool(), seams);
    }
    ~SeamsTest() override {
        pool.reset();
        if (GetParam().driver == std::string("cuda")) {
            EXPECT_EQ(FakeLibrary::cuda().violations(), 0U) << FakeLibrary::cuda().last_violation();
            EXPECT_EQ(FakeLibrary::cuda().live("bytes"), 0U);
        }
    }

    Written write(std::size_t bytes, const char* tag) {
        const Address address = pool->malloc(bytes, tag);
        return {address, bytes, fill(address, bytes, bytes)};
    }

    Lender* lender = nullptr;
    InvertedStore* store = nullptr;
    std::unique_ptr<Pool> pool;
};
INSTANTIATE_TEST_SUITE_P(On, SeamsTest, ::testing::Values(on_host, on_cuda), ::testing::PrintToStringParamName());

TEST_P(SeamsTest, ContentGoesThroughAnotherCodeAndMemoryBackToItsLender) {
    const Written weights = write(10 * MiB, "weights");
    write(6 * MiB, "kv_cache");
    const std::vector<unsigned char> first(reinterpret_cast<unsigned char*>(weights.address),
                                           reinterpret_cast<unsigned char*>(weights.address) + 4096);
    const int created = lender->created;
    pool->sleep(1);
    EXPECT_EQ(lender->lent, 0U);
    ASSERT_FALSE(store->kept.empty());
    for (std::size_t i = 0; i < first.size(); ++i) {
        ASSERT_EQ(store->kept.begin()->second[i], static_cast<unsigned char>(~first[i]));
    }
    pool->wake({});
    EXPECT_EQ(lender->lent, 16 * MiB);
    EXPECT_EQ(lender->created, created) << "the same memory came back";
    EXPECT_TRUE(weights.intact());
    EXPECT_EQ(pool->sleep(1).clean_bytes, weights.bytes) << "a backup is trusted whatever its code";
    pool->wake({});
    pool->stage({.bytes_per_second = 0, .piece_bytes = MiB});
    pool->wait_staged();
    EXPECT_EQ(pool->stats().staging.error, "");
    pool->free(weights.address);
    EXPECT_TRUE(store->kept.empty());
    EXPECT_EQ(lender->lent, 6 * MiB);
}

TEST_P(SeamsTest, StagingWritesPiecesInAnotherCodeToo) {
    const Written weights = write(10 * MiB, "weights");
    pool->stage({.bytes_per_second = 0, .piece_bytes = MiB});
    pool->wait_staged();
    EXPECT_EQ(pool->sleep(1).copied_bytes, 0U);
    pool->wake({});
    EXPECT_TRUE(weights.intact());
}

TEST_P(SeamsTest, AWakeRestoresInTheOrderOfAllocationWhateverTheAddressesAndTags) {
    std::vector<Address> order;
    for (int round = 0; round < 3; ++round) {
        for (const char* tag : {"weights", "runtime", "default"}) {
            order.push_back(write(2 * MiB, tag).address);
        }
    }
    pool->free(order[4]);
    order.erase(order.begin() + 4);
    order.push_back(write(2 * MiB, "weights").address);
    pool->sleep(1);
    pool->wake({});
    EXPECT_EQ(store->restored, order);
}

TEST_P(SeamsTest, ALenderWithoutRoomLeavesEverythingAsleep) {
    const Written weights = write(10 * MiB, "weights");
    pool->sleep(1);
    lender->budget = 8 * MiB;
    EXPECT_THROW(pool->wake({}), out_of_memory);
    EXPECT_EQ(lender->lent, 0U);
    lender->budget = budget;
    pool->wake({});
    EXPECT_TRUE(weights.intact());
    EXPECT_THROW(pool->malloc(30 * MiB, "weights"), out_of_memory) << "the device has room, the lender has not";
    EXPECT_EQ(lender->lent, weights.bytes);
}

TEST_P(SeamsTest, HandlesAreLetGoWhileTheMemoryIsInUseAndTheLenderHearsWhenItComesBack) {
    const Written weights = write(10 * MiB, "weights");
    for (int round = 0; round < 2; ++round) {
        EXPECT_TRUE(lender->handles.empty());
        EXPECT_EQ(lender->lent, weights.bytes);
        pool->sleep(1);
        EXPECT_EQ(lender->lent, 0U);
        pool->wake({});
        EXPECT_TRUE(weights.intact());
    }
    pool->free(weights.address);
    EXPECT_EQ(lender->lent, 0U);
}

TEST_P(SeamsTest, HandlesThatCannotGoAtOnceGoWithTheMemory) {
    lender->refuses = true;
    const Written weights = write(10 * MiB, "weights");  // three chunks
    EXPECT_EQ(lender->handles.size(), 3U);
    EXPECT_THROW(pool->sleep(1), driver_error);
    EXPECT_EQ(lender->lent, weights.bytes) << "unmapped, but nothing came back";
    EXPECT_EQ(pool->stats().mapped_bytes, weights.bytes);
    lender->refuses = false;
    pool->sleep(1);
    EXPECT_TRUE(lender->handles.empty());
    EXPECT_EQ(lender->lent, 0U);
    pool->wake({});
    EXPECT_TRUE(weights.intact());
}

TEST_P(SeamsTest, AStoreThatRefusesLeavesEverythingAwake) {
    const Written weights = write(10 * MiB, "weights");
    store->refuses = true;
    EXPECT_THROW(pool->sleep(1), host_out_of_memory);
    EXPECT_TRUE(weights.intact());
    EXPECT_TRUE(store->kept.empty());
    store->refuses = false;
    pool->sleep(1);
    pool->wake({});
    EXPECT_TRUE(weights.intact());
}

}  // namespace
}  // namespace dormouse
