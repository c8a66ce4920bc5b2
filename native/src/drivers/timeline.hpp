// When a shared resource of a simulation (a link, a lock) is busy.
//
// Work takes the free time at or after the moment of its request, in pieces where it must. So no free time is lost
// to the order in which real threads happen to ask, and the moment at which all of it is done does not depend on that
// order either. Not thread-safe: the driver holds its lock around a call.
#pragma once

#include <map>

namespace dormouse {

class Timeline {
   public:
    // Books `work` seconds from `from` on, around what is booked already and what `blocked` has booked. Returns the
    // time at which the work is done.
    double take(double from, double work, const Timeline* blocked = nullptr);

   private:
    // The first free moment at or after `at`, and the first busy one after that.
    double free_from(double at) const;
    double busy_from(double at) const;
    void book(double begin, double end);

    std::map<double, double> busy_;  // begin to end; apart from one another
};

}  // namespace dormouse
