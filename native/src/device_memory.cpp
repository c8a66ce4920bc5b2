// Device memory of this process's own: created and released through its driver.
#include "dormouse/device_memory.hpp"

#include <optional>

#include "collector.hpp"

namespace dormouse {

namespace {

class DriverMemory final : public DeviceMemory {
   public:
    DriverMemory(Driver& driver, double collect_seconds) : driver_(driver) {
        if (collect_seconds > 0 && driver.collects_late()) {
            collector_.emplace(driver, collect_seconds);
        }
    }
    Physical take(Address /*place*/, std::size_t bytes) override {
        if (collector_) {
            collector_->taken();
        }
        return driver_.create(bytes);
    }
    void let_go(Physical physical) override { driver_.release(physical); }
    void returned(Address /*place*/, std::size_t /*bytes*/) noexcept override {
        if (collector_) {
            collector_->released();
        }
    }
    std::size_t available() override { return driver_.memory().free; }

   private:
    Driver& driver_;
    std::optional<Collector> collector_;
};

}  // namespace

std::unique_ptr<DeviceMemory> make_driver_memory(Driver& driver, double collect_seconds) {
    return std::make_unique<DriverMemory>(driver, collect_seconds);
}

}  // namespace dormouse
