// Copies the content of resident segments to the backup store while the engine serves, so that even the first sleep
// need not copy.
//
// One thread, one chunk at a time, in pieces, at a bounded rate, so that the engine's own small copies wait for one
// piece at most. It holds a segment's lock for one piece; a free waits no longer than that. What arrived is digested
// where it arrived (chunk.hpp says why). What it has finished is only a proposal: the sleep digests the device before
// it trusts it.
#pragma once

#include <condition_variable>
#include <mutex>
#include <optional>
#include <stop_token>
#include <thread>
#include <vector>

#include "transition.hpp"

namespace dormouse {

class Stager {
   public:
    explicit Stager(const Parts& parts) : parts_(parts) {}
    ~Stager() { stop(); }

    // Returns at once; does nothing while one runs.
    void start(std::vector<SegmentPtr> segments, const StageOptions& options);
    // Returns when no staging runs any more: after the piece, or the part of host memory, that is under way.
    void stop() noexcept;
    // Returns when the staging is done, stopped or failed.
    void wait();
    StageStats stats() const;

   private:
    void run(const std::vector<SegmentPtr>& segments, const StageOptions& options) noexcept;
    void stage(Segment& segment, Chunk& chunk, const StageOptions& options, double begin);
    bool make_place(Segment& segment, Chunk& chunk, std::unique_lock<FairMutex>& lock);
    bool still_good(const Chunk& chunk, std::uint64_t generation);
    std::optional<std::uint64_t> copy(Segment& segment, Chunk& chunk, std::unique_lock<FairMutex>& lock,
                                      const StageOptions& options, double begin);
    void pace(const StageOptions& options, double begin);
    void advance(std::size_t bytes);
    bool stopping() const noexcept { return stop_.stop_requested(); }

    const Parts& parts_;
    std::mutex control_;  // one start, stop or wait at a time touches the thread
    std::thread thread_;
    std::stop_source stop_;  // made anew by each start, while no thread runs
    Stream stream_ = nullptr;
    std::size_t copied_ = 0;  // by the running thread alone

    mutable std::mutex books_;
    std::condition_variable ended_;
    StageStats stats_;
    double end_ = 0;
};

}  // namespace dormouse
