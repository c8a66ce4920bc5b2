// The machine's monotonic clock. Real time passes by itself, so catching up is nothing to do.
#include "dormouse/clock.hpp"

#include <chrono>
#include <thread>

namespace dormouse {

namespace {

class RealClock final : public Clock {
   public:
    double now() override {
        return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
    }
    void catch_up(double /*time*/) override {}
    void sleep(double seconds) override {
        if (seconds > 0) {
            std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
        }
    }
};

}  // namespace

Clock& real_clock() {
    static auto* const clock = new RealClock;  // never destroyed: a pool may be used until the process ends
    return *clock;
}

}  // namespace dormouse
