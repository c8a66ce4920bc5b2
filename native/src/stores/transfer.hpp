// One run of copies between a device and the rooms of a store.
//
// Pieces are cut at block boundaries. Pinned blocks are copied directly on one stream; the others are carried by the
// lanes of the ring. A block that is not ready yet is committed by one of several threads, and then pinned and copied
// by one more, the issuer, in the order in which the blocks came. Committing is work of the processor and takes as many
// threads as there are; pinning runs under a lock of the driver, where threads would only stand in line and not commit
// meanwhile. So all three go on at once, add() never waits for any of them, and a simulated clock sees the same order
// in every run. Once the issuer exists all copies are issued by it alone; before, by the caller.
//
// A restore finds every block ready, so it has no issuer, and what it copies directly may be shared with the device's
// processors (shared_copy.hpp).
//
// Threads live no longer than the transfer.
#pragma once

#include <deque>
#include <exception>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

#include "dormouse/backup.hpp"
#include "stores/equipment.hpp"
#include "stores/ring.hpp"
#include "stores/room.hpp"
#include "stores/shared_copy.hpp"
#include "stores/worker.hpp"

namespace dormouse {

// Finds the room of a slot; throws invalid_argument for one that is not booked.
using FindRoom = std::function<std::shared_ptr<Room>(Slot)>;

class StoreTransfer final : public Transfer {
   public:
    StoreTransfer(Ground& ground, Equipment& equipment, FindRoom find, Direction direction, Priority priority);
    // A restore; with a pace it may be pulled, by a driver that can.
    StoreTransfer(Ground& ground, Equipment& equipment, FindRoom find, const std::optional<PullPace>& pull);
    ~StoreTransfer() override { abandon(); }

    void add(const Piece& piece) override;
    void hand_over() override;
    void finish() override;
    std::size_t pulled_bytes() const noexcept override { return shared_ ? shared_->pulled_bytes() : 0; }

   private:
    void add_block(const std::shared_ptr<Room>& room, Block& block, const Part& part);
    using Commits = std::shared_ptr<std::vector<std::shared_future<void>>>;
    Commits being_committed(const std::shared_ptr<Room>& room, Block& block);
    void send(const Block& block, const Part& part);
    void send_through_ring(const Part& part);
    void make_lanes();
    void wait_for_all();
    void abandon() noexcept;
    template <class Step>
    void guarded(const Step& step);

    Ground& ground_;
    Equipment& equipment_;
    const FindRoom find_;
    const Direction direction_;
    const Priority priority_;
    bool finished_ = false;
    std::exception_ptr failure_;

    Shelf<CopyStream>::Borrowed stream_;
    std::optional<SharedCopy> shared_;
    bool ring_made_ = false;
    std::deque<Lane> lanes_;  // none after ring_made_: the device copies pageable memory
    std::size_t next_lane_ = 0;
    std::unordered_map<Block*, Commits> committing_;
    std::deque<Worker> committers_;
    std::size_t next_committer_ = 0;
    std::vector<std::shared_ptr<Room>> rooms_;  // kept until every copy has arrived
    std::unique_ptr<Worker> issuer_;
};

}  // namespace dormouse
