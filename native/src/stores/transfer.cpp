#include "stores/transfer.hpp"

#include <algorithm>
#include <utility>

#include "dormouse/error.hpp"

namespace dormouse {

StoreTransfer::StoreTransfer(Ground& ground, Equipment& equipment, FindRoom find, Direction direction,
                             Priority priority)
    : ground_(ground),
      equipment_(equipment),
      find_(std::move(find)),
      direction_(direction),
      priority_(priority),
      stream_(equipment.streams(priority).take()) {}

StoreTransfer::StoreTransfer(Ground& ground, Equipment& equipment, FindRoom find, const std::optional<PullPace>& pull)
    : StoreTransfer(ground, equipment, std::move(find), Direction::restore, Priority::normal) {
    if (pull) {
        shared_.emplace(ground_.driver, equipment_.streams(priority_), *stream_, *pull);
    }
}

// After a failure nothing is under way any more, and every later call throws the same again.
template <class Step>
void StoreTransfer::guarded(const Step& step) {
    if (failure_) {
        std::rethrow_exception(failure_);
    }
    try {
        step();
    } catch (...) {
        failure_ = std::current_exception();
        abandon();
        throw;
    }
}

void StoreTransfer::add(const Piece& piece) {
    if (finished_) {
        throw illegal_state("a piece was added to a transfer that is finished");
    }
    const std::shared_ptr<Room> room = find_(piece.slot);
    room->check_piece(piece.offset, piece.bytes);
    guarded([&] {
        if (rooms_.empty() || rooms_.back() != room) {
            rooms_.push_back(room);
        }
        for (std::size_t done = 0; done < piece.bytes;) {
            Block& block = room->blocks()[(piece.offset + done) / block_bytes];
            const std::size_t within = (piece.offset + done) % block_bytes;
            const std::size_t bytes = std::min(piece.bytes - done, block.bytes() - within);
            add_block(room, block, {piece.device + done, block.address() + within, bytes});
            done += bytes;
        }
    });
}

void StoreTransfer::add_block(const std::shared_ptr<Room>& room, Block& block, const Part& part) {
    if (!issuer_ && block.ready(ground_.driver.clock())) {
        send(block, part);
        return;
    }
    if (direction_ == Direction::restore) {
        throw illegal_state("a restore was asked of a slot that holds nothing");
    }
    const Commits commits = being_committed(room, block);
    if (!issuer_) {
        issuer_ = std::make_unique<Worker>(ground_.driver.clock());
    }
    issuer_->post([this, &block, part, commits] {
        for (const std::shared_future<void>& commit : *commits) {
            commit.get();
        }
        block.pin(ground_);
        block.ready(ground_.driver.clock());
        send(block, part);
    });
}

// Hands the parts of a block out to the threads that commit, once. None for a block that is committed already.
StoreTransfer::Commits StoreTransfer::being_committed(const std::shared_ptr<Room>& room, Block& block) {
    if (const auto known = committing_.find(&block); known != committing_.end()) {
        return known->second;
    }
    const auto commits = std::make_shared<std::vector<std::shared_future<void>>>();
    for (std::size_t part = 0; part < block.parts() && !block.committed(); ++part) {
        if (committers_.size() < equipment_.threads) {
            committers_.emplace_back(ground_.driver.clock());
        }
        Worker& worker = committers_[next_committer_++ % equipment_.threads];
        // A task that is dropped breaks its promise, which wakes who waits for it.
        const auto task =
            std::make_shared<std::packaged_task<void()>>([this, room, &block, part] { block.commit(ground_, part); });
        commits->push_back(task->get_future().share());
        worker.post([task] { (*task)(); });
    }
    committing_.emplace(&block, commits);
    return commits;
}

void StoreTransfer::send(const Block& block, const Part& part) {
    if (block.pinned() && shared_) {
        shared_->add(part);
    } else if (block.pinned()) {
        stream_->copy(direction_, part.host, part);
    } else {
        send_through_ring(part);
    }
}

void StoreTransfer::send_through_ring(const Part& part) {
    make_lanes();
    if (lanes_.empty()) {
        stream_->copy(direction_, part.host, part);
        return;
    }
    for (std::size_t done = 0; done < part.bytes;) {
        const std::size_t bytes = std::min(part.bytes - done, equipment_.ring_buffer);
        lanes_[next_lane_++ % lanes_.size()].carry({part.device + done, part.host + done, bytes});
        done += bytes;
    }
}

void StoreTransfer::make_lanes() {
    if (ring_made_) {
        return;
    }
    for (auto& buffers : equipment_.take_buffers(equipment_.lanes(direction_))) {
        lanes_.emplace_back(ground_.driver, direction_, std::move(buffers), equipment_.streams(priority_));
    }
    ring_made_ = true;
}

void StoreTransfer::hand_over() {
    if (shared_ && !finished_) {
        guarded([this] { shared_->hand_over(); });
    }
}

void StoreTransfer::finish() {
    if (finished_) {
        return;
    }
    guarded([this] { wait_for_all(); });
    finished_ = true;
}

void StoreTransfer::wait_for_all() {
    if (issuer_) {
        issuer_->finish();
    }
    if (shared_) {
        shared_->finish();
    }
    for (Lane& lane : lanes_) {
        lane.finish();
    }
    stream_->synchronize();
}

void StoreTransfer::abandon() noexcept {
    for (Worker& worker : committers_) {
        worker.drop();
    }
    committers_.clear();  // before the issuer: it may wait for a block that will not come, and is told so
    issuer_.reset();
    for (Lane& lane : lanes_) {
        lane.drop();
    }
    lanes_.clear();
    if (shared_) {
        shared_->drop();
    }
    if (!finished_) {
        stream_->synchronize_quietly();
    }
}

}  // namespace dormouse
