#include "dormouse/table.hpp"

#include <algorithm>

#include "dormouse/error.hpp"

namespace dormouse {

namespace {

void refuse_unless_resident(const std::map<std::string, TagState>& tags, const std::string& tag) {
    const auto found = tags.find(tag);
    if (found != tags.end() && found->second != TagState::resident) {
        throw illegal_state("tag '" + tag + "' is " + to_string(found->second) +
                            ": wake it before allocating under it");
    }
}

}  // namespace

void Table::expect_resident(const std::string& tag) {
    const std::lock_guard lock(mutex_);
    refuse_unless_resident(tags_, tag);
}

void Table::add(SegmentPtr segment) {
    const std::lock_guard lock(mutex_);
    refuse_unless_resident(tags_, segment->tag());
    tags_.emplace(segment->tag(), TagState::resident);
    const Address address = segment->address();
    segments_.emplace(address, std::pair{sequence_++, std::move(segment)});
}

SegmentPtr Table::take(Address address) {
    std::unique_lock lock(mutex_);
    for (;;) {
        const auto found = segments_.find(address);
        if (found == segments_.end()) {
            throw invalid_argument("no segment of this pool begins at address " + std::to_string(address));
        }
        if (tags_.at(found->second.second->tag()) != TagState::in_transition) {
            SegmentPtr segment = std::move(found->second.second);
            segments_.erase(found);
            return segment;
        }
        settled_.wait(lock);
    }
}

SegmentPtr Table::find(Address address) {
    const std::lock_guard lock(mutex_);
    const auto found = segments_.find(address);
    if (found == segments_.end()) {
        throw invalid_argument("no segment of this pool begins at address " + std::to_string(address));
    }
    return found->second.second;
}

std::vector<SegmentPtr> Table::segments() const {
    const std::lock_guard lock(mutex_);
    return in_order();
}

std::vector<SegmentPtr> Table::in_order() const {
    std::vector<std::pair<std::uint64_t, SegmentPtr>> ordered;
    ordered.reserve(segments_.size());
    for (const auto& [address, entry] : segments_) {
        ordered.push_back(entry);
    }
    std::sort(ordered.begin(), ordered.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    std::vector<SegmentPtr> result;
    result.reserve(ordered.size());
    for (auto& [order, segment] : ordered) {
        result.push_back(std::move(segment));
    }
    return result;
}

std::map<std::string, TagState> Table::tags() const {
    const std::lock_guard lock(mutex_);
    return tags_;
}

void Table::expect_known(const std::vector<std::string>& names) const {
    const std::lock_guard lock(mutex_);
    for (const std::string& name : names) {
        if (!tags_.contains(name)) {
            std::string known;
            for (const auto& [tag, state] : tags_) {
                known += (known.empty() ? "" : ", ") + tag;
            }
            throw invalid_argument("unknown tag '" + name +
                                   "'; tags with allocations so far: " + (known.empty() ? "none" : known));
        }
    }
}

Table::Move Table::begin(const Wish& wish) {
    const std::lock_guard lock(mutex_);
    Wish before;
    Wish after;
    for (const auto& [tag, wanted] : wish) {
        const auto found = tags_.find(tag);
        if (found == tags_.end()) {
            continue;
        }
        const TagState next = next_state(tag, found->second, wanted);
        if (next != found->second) {
            before.emplace(tag, found->second);
            after.emplace(tag, next);
        }
    }
    std::vector<SegmentPtr> moving = in_order();
    std::erase_if(moving, [&](const SegmentPtr& segment) { return !after.contains(segment->tag()); });
    // Marked last: what throws above leaves no tag behind that nobody will ever settle.
    for (const auto& [tag, state] : after) {
        tags_.at(tag) = TagState::in_transition;
    }
    return Move(*this, std::move(before), std::move(after), std::move(moving));
}

Table::Move::Move(Table& table, Wish before, Wish after, std::vector<SegmentPtr> segments)
    : table_(table), before_(std::move(before)), after_(std::move(after)), segments_(std::move(segments)) {}

Table::Move::~Move() {
    {
        const std::lock_guard lock(table_.mutex_);
        for (const auto& [tag, state] : committed_ ? after_ : before_) {
            table_.tags_.at(tag) = state;
        }
    }
    table_.settled_.notify_all();
}

}  // namespace dormouse
