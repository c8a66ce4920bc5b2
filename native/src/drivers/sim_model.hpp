// What one H200 and its host take for each operation: the figures that the simulated device plays with.
//
// Every figure was measured on one machine (H200, driver 580, PCIe 5 x16, a VM of 16 cores with 126 GiB) unless it is
// called an assumption. Rates are bytes per second, times are seconds. Not modelled: both directions of the link at
// once (94 GiB/s together instead of 103), host memory that was never used since boot (five to ten times slower to
// touch and pin), memory bandwidth that touching, pinning and copying take from one another (a first offload of 61 GiB
// plays in 1.2 s and took 1.47 s), and the spread of creating chunks of 256 MiB and more (the lower end of what was
// seen is used; right after a release it is up to 2 ms per GiB).
#pragma once

#include <array>
#include <cstddef>
#include <memory>

#include "dormouse/driver.hpp"

namespace dormouse {

inline constexpr double sim_gib = 1024.0 * 1024.0 * 1024.0;

struct SimModel {
    // Device memory that a fresh context finds free: 143771 MiB, less what the driver keeps.
    std::size_t device_bytes = std::size_t{143052} << 20;
    // MemTotal of the host, 125.9 GiB.
    std::size_t host_bytes = std::size_t{126} << 30;
    // Work on host memory is spread over this many threads; each gets its fair share of what so many reach together.
    unsigned host_threads = 16;

    // Pinned copies, fitted to chunks of 2 MiB to 1 GiB: 48.3, 50.8, 51.5, 51.7 GiB/s up, 48.9, 50.9, 51.5, 51.6 down.
    // The overhead of each copy keeps the link busy too: more streams brought no gain.
    double up_rate = 51.72 * sim_gib;
    double up_overhead = 2.7e-6;
    double down_rate = 51.63 * sim_gib;
    double down_overhead = 2.1e-6;

    // Released memory is cleared in the background, and copies to the device wait meanwhile, whatever memory they go
    // to. This rate, counted from each release, reproduces the six measured copies after a release within 2 %. (Seen
    // from the end of all releases it looks like 470 GiB/s: 256 MiB take 70 us to release, with clearing under way.)
    double clear_rate = 393.0 * sim_gib;

    // Touching huge pages that were used before: 8.4, 40.1, 66.1 GiB/s with 1, 8, 16 threads.
    std::array<double, 3> touch_rates = {8.4 * sim_gib, 40.1 * sim_gib, 66.1 * sim_gib};
    // memcpy: 12.0, 65.9, 86.3 GiB/s with 1, 8, 16 threads.
    std::array<double, 3> copy_rates = {12.0 * sim_gib, 65.9 * sim_gib, 86.3 * sim_gib};
    // munmap of 61 GiB took 0.14 s.
    double decommit_rate = 61.0 / 0.14 * sim_gib;

    // cudaHostRegister of touched huge pages, 61 to 66 GiB/s, and unregister, 71 to 89; threads do not help.
    double pin_rate = 63.0 * sim_gib;
    double unpin_rate = 80.0 * sim_gib;
    // cudaHostAlloc 3.0 to 3.5 GiB/s whatever the block and the threads; cudaFreeHost 11 to 15.
    double host_alloc_rate = 3.25 * sim_gib;
    double host_free_rate = 13.0 * sim_gib;

    // Our kernel over 61 GiB in 262 ranges: 3945 to 3995 GiB/s, nine tenths of the memory's 4.8 TB/s. The launch is an
    // assumption.
    double digest_rate = 3970.0 * sim_gib;
    double digest_overhead = 10e-6;

    // Per call on one chunk of 2, 32, 256 and 1024 MiB, in microseconds. An unmap after the release frees the memory
    // and is taken to last as long as the release would have: of 330 chunks of 248 MiB the unmaps took 8.6 ms and the
    // releases after them 26.4, and with the releases before them the unmaps took 28.3 and the releases nothing.
    using PerChunk = std::array<double, 4>;
    PerChunk create = {8.6, 10.5, 11.0, 500.0};
    PerChunk map = {0.5, 0.4, 0.5, 0.8};
    PerChunk allow = {21.5, 21.5, 30.0, 50.0};
    PerChunk unmap = {15.0, 15.0, 17.0, 24.0};
    PerChunk release = {8.0, 16.0, 70.0, 230.0};
};

// Seconds of a call on a chunk of `bytes`: straight lines between the sizes that were measured, and on beyond them.
double sim_call_seconds(const SimModel::PerChunk& microseconds, std::size_t bytes);

// What `threads` reach together: straight lines between 1, 8 and 16, flat beyond.
double sim_host_rate(const std::array<double, 3>& rates, unsigned threads);

// As make_sim_driver, with figures of one's own.
std::unique_ptr<Driver> make_sim_driver(const DriverOptions& options, const SimModel& model);

}  // namespace dormouse
