#include "drivers/timeline.hpp"

#include <algorithm>
#include <iterator>
#include <limits>

namespace dormouse {

namespace {

// Shorter than any operation and longer than what adding up doubles loses.
constexpr double instant = 1e-11;

}  // namespace

double Timeline::free_from(double at) const {
    const auto after = busy_.upper_bound(at + instant);
    return after == busy_.begin() ? at : std::max(at, std::prev(after)->second);
}

double Timeline::busy_from(double at) const {
    const auto after = busy_.upper_bound(at + instant);
    return after == busy_.end() ? std::numeric_limits<double>::infinity() : after->first;
}

void Timeline::book(double begin, double end) {
    const auto after = busy_.upper_bound(begin);
    if (after != busy_.begin() && std::prev(after)->second >= begin - instant) {
        begin = std::prev(after)->first;
    }
    if (after != busy_.end() && after->first <= end + instant) {
        end = after->second;
        busy_.erase(after);
    }
    busy_[begin] = end;
}

double Timeline::take(double from, double work, const Timeline* blocked) {
    double at = from;
    while (work > instant) {
        const double free = free_from(at);
        at = blocked == nullptr ? free : blocked->free_from(free);
        if (at > free) {
            continue;  // blocked until then; perhaps booked by others from there on
        }
        const double until = std::min(busy_from(at), blocked == nullptr ? busy_from(at) : blocked->busy_from(at));
        const double piece = std::min(work, until - at);
        book(at, at + piece);
        at += piece;
        work -= piece;
    }
    return at;
}

}  // namespace dormouse
