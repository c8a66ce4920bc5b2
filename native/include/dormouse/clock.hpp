// Time as a seam, so that a simulated device can play hours of it at once.
//
// Real time ignores catch_up(). In virtual time every thread has its own clock: work advances the clock of the thread
// (or stream) that does it, and whoever receives a result catches up with the time at which it was ready. The pool
// hands that time over wherever one thread waits for another.
#pragma once

namespace dormouse {

class Clock {
   public:
    virtual ~Clock() = default;
    // Seconds since some fixed point, as this thread sees it.
    virtual double now() = 0;
    // This thread has waited for something that was ready at `time`.
    virtual void catch_up(double time) = 0;
    virtual void sleep(double seconds) = 0;
};

// The machine's monotonic clock.
Clock& real_clock();

}  // namespace dormouse
