#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "dormouse/driver.hpp"
#include "dormouse/error.hpp"
#include "drivers/sim_model.hpp"

namespace dormouse {
namespace {

constexpr std::size_t mib = std::size_t{1} << 20;
constexpr std::size_t gib = std::size_t{1} << 30;

void expect_refused(const std::string& call, int code, const std::function<void()>& body) {
    try {
        body();
        ADD_FAILURE() << call << " was not refused";
    } catch (const driver_error& failure) {
        EXPECT_EQ(failure.call, "sim." + call);
        EXPECT_EQ(failure.code, code) << failure.what();
    }
}

#define EXPECT_WITHIN(actual, expected, part) EXPECT_NEAR(actual, expected, (expected) * (part))

// A region of chunks, mapped one by one.
struct Region {
    Region(Driver& on, std::size_t size, std::size_t chunk_size)
        : driver(on), bytes(size), chunk(chunk_size), address(on.reserve(size)), physicals(size / chunk_size) {}

    Address at(std::size_t i) const { return address + i * chunk; }
    void create() {
        for (auto& physical : physicals) {
            physical = driver.create(chunk);
        }
    }
    void map() {
        for (std::size_t i = 0; i < physicals.size(); ++i) {
            driver.map(at(i), chunk, physicals[i]);
            driver.allow(at(i), chunk);
        }
    }
    void unmap() {
        for (std::size_t i = 0; i < physicals.size(); ++i) {
            driver.unmap(at(i), chunk);
        }
    }
    void release() {
        for (const auto physical : physicals) {
            driver.release(physical);
        }
    }

    Driver& driver;
    std::size_t bytes, chunk;
    Address address;
    std::vector<Physical> physicals;
};

class SimDriver : public testing::Test {
   protected:
    std::unique_ptr<Driver> driver = make_sim_driver(DriverOptions{});

    double took(const std::function<void()>& body) {
        const double begin = driver->clock().now();
        body();
        return driver->clock().now() - begin;
    }

    // Pinned host memory whose pinning is paid.
    char* pinned(std::size_t bytes) {
        void* memory = driver->host().reserve(bytes);
        driver->host().commit(memory, bytes);
        driver->pin(memory, bytes);
        return static_cast<char*>(memory);
    }

    double copy_in(const Region& to, const char* from) {
        return took([&] {
            const Stream stream = driver->create_stream(Priority::normal);
            for (std::size_t i = 0; i < to.physicals.size(); ++i) {
                driver->copy_to_device(to.at(i), from + i * to.chunk, to.chunk, stream);
            }
            driver->synchronize(stream);
            driver->destroy_stream(stream);
        });
    }
};

TEST_F(SimDriver, CopiesTakeWhatTheyTookByChunkSize) {
    struct Row {
        std::size_t chunk;
        double up, down;
    };
    char* host = pinned(8 * gib);
    Region region(*driver, 8 * gib, 1024 * mib);
    region.create();
    region.map();
    for (const Row& row : {Row{2 * mib, 48.3, 48.9}, Row{8 * mib, 50.8, 50.9}, Row{32 * mib, 51.5, 51.5},
                           Row{128 * mib, 51.7, 51.6}, Row{512 * mib, 51.7, 51.6}, Row{1024 * mib, 51.7, 51.6}}) {
        const auto rate = [&](const std::function<void(std::size_t)>& copy) {
            return 8.0 / took([&] {
                       for (std::size_t at = 0; at < 8 * gib; at += row.chunk) {
                           copy(at);
                       }
                       driver->synchronize(nullptr);
                   });
        };
        const double up =
            rate([&](std::size_t at) { driver->copy_to_device(region.address + at, host + at, row.chunk, nullptr); });
        const double down =
            rate([&](std::size_t at) { driver->copy_to_host(host + at, region.address + at, row.chunk, nullptr); });
        EXPECT_WITHIN(up, row.up, 0.005) << row.chunk;
        EXPECT_WITHIN(down, row.down, 0.005) << row.chunk;
    }
}

TEST_F(SimDriver, SixtyOneGibibytesAreCopiedIn1Second18) {
    char* host = pinned(61 * gib);
    Region region(*driver, 61 * gib, 256 * mib);
    region.create();
    region.map();
    EXPECT_WITHIN(copy_in(region, host), 1.18, 0.01);
    EXPECT_WITHIN(took([&] {
                      for (std::size_t i = 0; i < region.physicals.size(); ++i) {
                          driver->copy_to_host(host + i * region.chunk, region.at(i), region.chunk, nullptr);
                      }
                      driver->synchronize(nullptr);
                  }),
                  1.183, 0.01);
}

TEST_F(SimDriver, MappingTakesWhatItTookByChunkSize) {
    struct Row {
        std::size_t chunk;
        double create_low, create_high, release_low, release_high;  // seconds for 60 GiB
    };
    for (const Row& row : {Row{2 * mib, 0.93, 0.97, 0.68, 0.76}, Row{32 * mib, 0.06, 0.07, 0.055, 0.07},
                           Row{256 * mib, 0.0095, 0.05, 0.015, 0.025}, Row{1024 * mib, 0.03, 0.12, 0.0145, 0.0155}}) {
        Region region(*driver, 60 * gib, row.chunk);
        const double up = took([&] {
            region.create();
            region.map();
        });
        const double down = took([&] {
            region.unmap();
            region.release();
        });
        EXPECT_GE(up, row.create_low) << row.chunk;
        EXPECT_LE(up, row.create_high) << row.chunk;
        EXPECT_GE(down, row.release_low) << row.chunk;
        EXPECT_LE(down, row.release_high) << row.chunk;
    }
}

// 330 chunks of 80 GiB took 35.0 ms to unmap and release, and 28.3 ms to unmap after they had been released.
TEST_F(SimDriver, AnUnmapAfterTheReleaseFreesTheMemoryAndSparesACall) {
    EXPECT_TRUE(driver->mapping_keeps_memory());
    const std::size_t before = driver->memory().free;
    Region region(*driver, 80 * gib, 256 * mib);
    region.create();
    region.map();
    const double two_calls = took([&] {
        region.unmap();
        EXPECT_EQ(driver->memory().free, before - region.bytes) << "the handles hold it";
        region.release();
    });
    region.create();
    region.map();
    EXPECT_EQ(took([&] { region.release(); }), 0.0);
    EXPECT_EQ(driver->memory().free, before - region.bytes) << "the mappings hold it";
    const double one_call = took([&] { region.unmap(); });
    EXPECT_EQ(driver->memory().free, before);
    EXPECT_WITHIN(one_call / two_calls, 28.3 / 35.0, 0.02);
    expect_refused("release", EINVAL, [&] { driver->release(region.physicals[0]); });
    expect_refused("unmap", EFAULT, [&] { driver->unmap(region.address, region.chunk); });
}

TEST_F(SimDriver, MemoryThatWasReleasedBeforeItsUnmapIsClearedLikeAnyOther) {
    char* host = pinned(31 * gib);
    Region weights(*driver, 31 * gib, 256 * mib), rest(*driver, 70 * gib, 256 * mib);
    for (Region* region : {&weights, &rest}) {
        region->create();
        region->map();
        region->release();
    }
    rest.unmap();
    EXPECT_WITHIN(copy_in(weights, host), 0.760, 0.02) << "a copy waits for it";
}

TEST_F(SimDriver, AllowingManyMappingsAtOnceGainsNothing) {
    Region region(*driver, 64 * mib, 2 * mib);
    region.create();
    for (std::size_t i = 0; i < region.physicals.size(); ++i) {
        driver->map(region.at(i), region.chunk, region.physicals[i]);
    }
    EXPECT_NEAR(took([&] { driver->allow(region.address, region.bytes); }), 32 * 21.5e-6, 1e-8);
}

// The procedure of the measurement: everything mapped, weights copied in; all unmapped and released; mapped anew and
// copied in again. Weights and the rest (KV cache) in GiB.
TEST_F(SimDriver, ACopyWaitsForReleasedMemoryToBeCleared) {
    struct Row {
        std::size_t weights, rest;
        bool release_weights, release_rest;
        double seconds;
    };
    for (const Row& row :
         {Row{31, 70, true, true, 0.821}, Row{60, 20, true, true, 1.331}, Row{31, 70, true, false, 0.665},
          Row{60, 20, true, false, 1.287}, Row{31, 70, false, true, 0.760}, Row{60, 20, false, true, 1.206},
          Row{31, 70, false, false, 0.600}, Row{60, 20, false, false, 1.160}}) {
        driver = make_sim_driver(DriverOptions{});
        char* host = pinned(row.weights * gib);
        Region weights(*driver, row.weights * gib, 256 * mib), rest(*driver, row.rest * gib, 256 * mib);
        for (Region* region : {&weights, &rest}) {
            region->create();
            region->map();
        }
        const std::pair<Region*, bool> parts[] = {{&weights, row.release_weights}, {&rest, row.release_rest}};
        for (const auto& [region, leaves] : parts) {
            if (leaves) {
                region->unmap();
                region->release();
            }
        }
        if (row.release_weights) {
            weights.create();
            weights.map();
        }
        EXPECT_WITHIN(copy_in(weights, host), row.seconds, 0.02) << row.weights << " " << row.release_rest;
    }
}

TEST_F(SimDriver, ACopyAPauseAfterTheReleaseRunsAtFullSpeed) {
    char* host = pinned(31 * gib);
    Region weights(*driver, 31 * gib, 256 * mib), rest(*driver, 70 * gib, 256 * mib);
    for (Region* region : {&weights, &rest}) {
        region->create();
        region->map();
        region->unmap();
        region->release();
    }
    driver->clock().sleep(0.3);
    weights.create();
    weights.map();
    EXPECT_WITHIN(copy_in(weights, host), 0.600, 0.01);
}

TEST_F(SimDriver, StreamsShareOneLinkPerDirection) {
    char* host = pinned(2 * gib);
    Region region(*driver, 2 * gib, gib);
    region.create();
    region.map();
    const Stream one = driver->create_stream(Priority::normal), two = driver->create_stream(Priority::low);
    EXPECT_WITHIN(took([&] {
                      driver->copy_to_device(region.at(0), host, gib, one);
                      driver->copy_to_device(region.at(1), host + gib, gib, two);
                      driver->synchronize(one);
                      driver->synchronize(two);
                  }),
                  2 / 51.7, 0.01);
    EXPECT_WITHIN(took([&] {
                      driver->copy_to_device(region.at(0), host, gib, one);
                      driver->copy_to_host(host + gib, region.at(1), gib, two);
                      driver->synchronize_device();
                  }),
                  1 / 51.6, 0.01);
}

TEST_F(SimDriver, CopiesRunBehindTheThreadThatQueuesThem) {
    char* host = pinned(gib);
    Region region(*driver, gib, gib);
    region.create();
    region.map();
    EXPECT_EQ(took([&] { driver->copy_to_device(region.address, host, gib, nullptr); }), 0.0);
    driver->clock().sleep(0.01);
    EXPECT_WITHIN(took([&] { driver->synchronize(nullptr); }), 1 / 51.7 - 0.01, 0.01);
    EXPECT_EQ(took([&] { driver->synchronize(nullptr); }), 0.0);
}

TEST_F(SimDriver, EachThreadHasItsOwnTimeAndCatchesUpWhenTold) {
    Clock& clock = driver->clock();
    clock.sleep(5);
    double fresh = -1, later = -1;
    std::thread([&] {
        fresh = clock.now();
        clock.catch_up(7);
        clock.catch_up(6);
        clock.sleep(-1);
        later = clock.now();
    }).join();
    EXPECT_EQ(fresh, 0.0);
    EXPECT_EQ(later, 7.0);
    EXPECT_EQ(clock.now(), 5.0);
    EXPECT_EQ(make_sim_driver(DriverOptions{})->clock().now(), 0.0) << "another machine, another time";
}

// Touch and copy at the rates that so many threads reached together, whatever order the real threads run in.
TEST_F(SimDriver, HostWorkTakesWhatItTookWithSoManyThreads) {
    struct Row {
        unsigned threads;
        double touch, copy;
    };
    for (const Row& row : {Row{1, 8.4, 12.0}, Row{8, 40.1, 65.9}, Row{16, 66.1, 86.3}}) {
        SimModel model;
        model.host_threads = row.threads;
        driver = make_sim_driver(DriverOptions{}, model);
        HostMemory& host = driver->host();
        auto* memory = static_cast<char*>(host.reserve(32 * gib));
        const std::size_t share = 32 * gib / row.threads;
        const auto together = [&](const std::function<void(char*)>& work) {
            std::vector<double> ends(row.threads);
            std::vector<std::thread> threads;
            const double begin = driver->clock().now();
            for (unsigned i = 0; i < row.threads; ++i) {
                threads.emplace_back([&, i] {
                    driver->clock().catch_up(begin);
                    for (std::size_t at = 0; at < share; at += 128 * mib) {
                        work(memory + i * share + at);
                    }
                    ends[i] = driver->clock().now();
                });
            }
            for (auto& thread : threads) {
                thread.join();
            }
            return 32.0 / (*std::max_element(ends.begin(), ends.end()) - begin);
        };
        EXPECT_WITHIN(together([&](char* at) { host.commit(at, 128 * mib); }), row.touch, 0.02) << row.threads;
        EXPECT_WITHIN(together([&](char* at) { host.copy(at, at, 128 * mib); }), row.copy, 0.02) << row.threads;
    }
}

TEST_F(SimDriver, ThreadsDoNotPinFasterTogether) {
    auto* memory = static_cast<char*>(driver->host().reserve(16 * gib));
    driver->host().commit(memory, 16 * gib);
    const double begin = driver->clock().now();
    std::vector<double> ends(4);
    {
        std::vector<std::jthread> threads;
        for (std::size_t i = 0; i < 4; ++i) {
            threads.emplace_back([&, i] {
                driver->clock().catch_up(begin);
                for (std::size_t at = 0; at < 4 * gib; at += gib) {
                    driver->pin(memory + i * 4 * gib + at, gib);
                }
                ends[i] = driver->clock().now();
            });
        }
    }
    const double end = *std::max_element(ends.begin(), ends.end());
    EXPECT_WITHIN(end - begin, 16.0 / 63, 0.01);
    driver->clock().catch_up(end);
    EXPECT_WITHIN(took([&] { driver->unpin(memory, gib); }), 1.0 / 80, 0.01);
}

TEST_F(SimDriver, HostAllocIsSlowAndItsMemoryIsPinned) {
    void* memory = nullptr;
    EXPECT_WITHIN(took([&] { memory = driver->host_alloc(gib); }), 1 / 3.25, 0.01);
    EXPECT_EQ(driver->host().available(), 125 * gib);
    Region region(*driver, gib, gib);
    region.create();
    region.map();
    driver->copy_to_device(region.address, memory, gib, nullptr);
    expect_refused("unpin", EINVAL, [&] { driver->unpin(memory, gib); });
    driver->host_free(memory);
    EXPECT_EQ(driver->host().available(), 126 * gib);
    expect_refused("copy_to_device", EFAULT, [&] { driver->copy_to_device(region.address, memory, gib, nullptr); });
    expect_refused("host_free", EINVAL, [&] { driver->host_free(memory); });
}

TEST_F(SimDriver, HostMemoryIsFinite) {
    HostMemory& host = driver->host();
    auto* memory = static_cast<char*>(host.reserve(200 * gib));
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(memory) % (2 * mib), 0U);
    EXPECT_EQ(host.available(), 126 * gib) << "address space is free";
    host.commit(memory, 100 * gib);
    EXPECT_EQ(host.available(), 26 * gib);
    try {
        host.commit(memory + 100 * gib, 27 * gib);
        ADD_FAILURE() << "no room for it";
    } catch (const host_out_of_memory& failure) {
        EXPECT_EQ(failure.needed, 27 * gib);
        EXPECT_EQ(failure.available, 26 * gib);
    }
    EXPECT_THROW(driver->host_alloc(27 * gib), host_out_of_memory);
    EXPECT_THROW(host.reserve(0), invalid_argument);
    EXPECT_EQ(took([&] { host.commit(memory, 100 * gib); }), 0.0) << "committed already";
    EXPECT_EQ(host.available(), 26 * gib);
    host.decommit(memory + 10 * gib, 20 * gib);
    EXPECT_EQ(host.available(), 46 * gib);
    host.commit(memory + 5 * gib, 10 * gib);
    EXPECT_EQ(host.available(), 41 * gib) << "5 of these 10 were there";
    host.unreserve(memory, 200 * gib);
    EXPECT_EQ(host.available(), 126 * gib);
}

TEST_F(SimDriver, DeviceMemoryIsFinite) {
    EXPECT_NEAR(static_cast<double>(driver->memory().total) / static_cast<double>(gib), 139.7, 0.01);
    driver = make_sim_driver({.device = 0, .library = {}, .capacity = 10 * gib});
    EXPECT_EQ(driver->memory().total, 10 * gib);
    const Physical most = driver->create(9 * gib);
    try {
        driver->create(2 * gib);
        ADD_FAILURE() << "no room for it";
    } catch (const out_of_memory& failure) {
        EXPECT_EQ(failure.needed, 2 * gib);
        EXPECT_EQ(failure.available, gib);
    }
    EXPECT_EQ(driver->memory().free, gib);
    driver->release(most);
    EXPECT_EQ(driver->memory().free, 10 * gib);
}

TEST_F(SimDriver, CopiesWantPinnedHostMemory) {
    EXPECT_FALSE(driver->copies_pageable());
    auto* host = static_cast<char*>(driver->host().reserve(4 * gib));
    Region region(*driver, 2 * gib, gib);
    region.create();
    region.map();
    const auto copy = [&] { driver->copy_to_host(host, region.address, 2 * gib, nullptr); };
    expect_refused("pin", EFAULT, [&] { driver->pin(host, gib); });
    driver->host().commit(host, 2 * gib);
    expect_refused("copy_to_host", EFAULT, copy);
    driver->pin(host, gib);
    expect_refused("copy_to_host", EFAULT, copy);
    driver->pin(host + gib, gib);  // two calls side by side serve one copy
    copy();
    expect_refused("pin", EBUSY, [&] { driver->pin(host + gib / 2, gib); });
    expect_refused("pin", EFAULT, [&] { driver->pin(host + gib, 2 * gib); });
    expect_refused("pin", EINVAL, [&] { driver->pin(host + 2 * gib, 0); });
    expect_refused("unpin", EINVAL, [&] { driver->unpin(host, gib / 2); });
    driver->unpin(host, gib);
    expect_refused("unpin", EINVAL, [&] { driver->unpin(host, gib); });
    expect_refused("copy_to_host", EFAULT, copy);
}

TEST_F(SimDriver, TheDevicesRulesAreKept) {
    Region region(*driver, 4 * mib, 2 * mib);
    expect_refused("reserve", EINVAL, [&] { driver->reserve(1); });
    expect_refused("reserve", ENOMEM, [&] { driver->reserve(std::size_t{1} << 62); });
    expect_refused("create", EINVAL, [&] { driver->create(3 * mib); });
    region.create();
    char* host = pinned(4 * mib);
    const auto copy = [&] { driver->copy_to_device(region.address, host, 4 * mib, nullptr); };
    expect_refused("copy_to_device", EFAULT, copy);
    expect_refused("map", EINVAL, [&] { driver->map(region.address, 4 * mib, region.physicals[0]); });
    driver->map(region.address, 2 * mib, region.physicals[0]);
    expect_refused("map", EBUSY, [&] { driver->map(region.at(1), 2 * mib, region.physicals[0]); });
    expect_refused("map", EBUSY, [&] { driver->map(region.at(0), 2 * mib, region.physicals[1]); });
    expect_refused("map", EINVAL, [&] { driver->map(region.at(1), 2 * mib, 99); });
    driver->map(region.at(1), 2 * mib, region.physicals[1]);
    expect_refused("copy_to_device", EFAULT, copy);
    driver->allow(region.address, 4 * mib);
    copy();
    expect_refused("unmap", EFAULT, [&] { driver->unmap(region.address, 4 * mib); });
    expect_refused("unreserve", EBUSY, [&] { driver->unreserve(region.address, 4 * mib); });
    region.unmap();
    region.release();
    expect_refused("release", EINVAL, [&] { driver->release(region.physicals[0]); });
    driver->unreserve(region.address, 4 * mib);
    expect_refused("map", EFAULT, [&] { driver->map(region.address, 2 * mib, driver->create(2 * mib)); });
    const Stream stream = driver->create_stream(Priority::normal);
    driver->destroy_stream(stream);
    expect_refused("synchronize", EINVAL, [&] { driver->synchronize(stream); });
}

TEST_F(SimDriver, ARefusedCallTakesNoTime) {
    driver = make_sim_driver({.device = 0, .library = {}, .capacity = 2 * gib});
    EXPECT_EQ(took([&] {
                  EXPECT_THROW(driver->create(4 * gib), out_of_memory);
                  EXPECT_THROW(driver->release(5), driver_error);
                  EXPECT_THROW(driver->unmap(0, 2 * mib), driver_error);
              }),
              0.0);
}

TEST_F(SimDriver, ADigestSaysThatNothingChangedAndTakesItsTime) {
    Region region(*driver, 70 * gib, gib);
    region.create();
    region.map();
    const std::vector<Range> ranges = {{region.at(0), 35 * gib}, {region.at(35), 35 * gib}, {region.at(1), 16}};
    std::vector<std::uint64_t> first(3), second(3);
    const double seconds = took([&] { driver->digest(ranges, first, nullptr); });
    EXPECT_WITHIN(seconds, 70.0 / 3970.0, 0.01);
    driver->digest(ranges, second, nullptr);
    EXPECT_EQ(first, second);
    EXPECT_EQ(first[0], first[1]);
    EXPECT_NE(first[0], first[2]);
    const std::vector<Range> odd = {{region.at(0), 8}}, beyond = {{region.at(69), 2 * gib}};
    expect_refused("digest", EINVAL, [&] { driver->digest(odd, {first.data(), 1}, nullptr); });
    expect_refused("digest", EINVAL, [&] { driver->digest(odd, first, nullptr); });
    expect_refused("digest", EFAULT, [&] { driver->digest(beyond, {first.data(), 1}, nullptr); });
}

}  // namespace
}  // namespace dormouse
