// Names the phases of a transition and times them.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "dormouse/clock.hpp"

namespace dormouse {

class Stopwatch {
   public:
    explicit Stopwatch(Clock& clock) : clock_(clock), begin_(clock.now()), last_(begin_) {}

    // Ends the running phase and begins `name`.
    void phase(std::string name) {
        finish();
        name_ = std::move(name);
    }
    void finish() {
        const double now = clock_.now();
        if (!name_.empty()) {
            phases_.emplace_back(std::exchange(name_, {}), now - last_);
        }
        last_ = now;
    }
    double seconds() { return clock_.now() - begin_; }
    std::vector<std::pair<std::string, double>> phases() const { return phases_; }

   private:
    Clock& clock_;
    double begin_;
    double last_;
    std::string name_;
    std::vector<std::pair<std::string, double>> phases_;
};

}  // namespace dormouse
