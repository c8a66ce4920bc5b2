// All segments of a pool and the states of their tags, under one mutex that is never held across a driver call.
//
// A tag exists from its first segment and keeps its state without segments. Moving tags is a transaction: begin() marks
// them in_transition and hands out their segments, commit() sets the new states, and without a commit the old ones come
// back.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "dormouse/segment.hpp"
#include "dormouse/tag.hpp"

namespace dormouse {

using SegmentPtr = std::shared_ptr<Segment>;

class Table {
   public:
    class Move;
    // The state wanted of a tag, or nothing to leave it alone.
    using Wish = std::map<std::string, TagState>;

    // Throws illegal_state unless the tag is resident (or new).
    void expect_resident(const std::string& tag);
    // Adds a segment; throws as expect_resident does if its tag began to move meanwhile.
    void add(SegmentPtr segment);
    // Removes the segment at `address`, after the transition of its tag if one runs. Throws invalid_argument.
    SegmentPtr take(Address address);
    SegmentPtr find(Address address);

    // In the order of their allocation, which is close to the order of their first use.
    std::vector<SegmentPtr> segments() const;
    std::map<std::string, TagState> tags() const;
    // Throws invalid_argument for a tag that was never used.
    void expect_known(const std::vector<std::string>& names) const;

    // Marks the tags whose state must change. Whatever it throws, nothing is marked then.
    Move begin(const Wish& wish);

   private:
    // segments(), for who holds the mutex.
    std::vector<SegmentPtr> in_order() const;

    mutable std::mutex mutex_;
    std::condition_variable settled_;
    std::map<std::string, TagState> tags_;
    std::map<Address, std::pair<std::uint64_t, SegmentPtr>> segments_;
    std::uint64_t sequence_ = 0;
};

class Table::Move {
   public:
    Move(Table& table, Wish before, Wish after, std::vector<SegmentPtr> segments);
    ~Move();
    Move(const Move&) = delete;
    Move& operator=(const Move&) = delete;

    // The segments of the tags that move, in the order of their allocation.
    const std::vector<SegmentPtr>& segments() const noexcept { return segments_; }
    TagState target(const Segment& segment) const { return after_.at(segment.tag()); }
    bool empty() const noexcept { return after_.empty(); }
    void commit() noexcept { committed_ = true; }

   private:
    Table& table_;
    Wish before_;
    Wish after_;
    std::vector<SegmentPtr> segments_;
    bool committed_ = false;
};

}  // namespace dormouse
