// Device memory of this process's own: created and released through its driver.
#include "dormouse/device_memory.hpp"

namespace dormouse {

namespace {

class DriverMemory final : public DeviceMemory {
   public:
    explicit DriverMemory(Driver& driver) : driver_(driver) {}
    Physical take(Address /*place*/, std::size_t bytes) override { return driver_.create(bytes); }
    void let_go(Physical physical) override { driver_.release(physical); }
    void returned(Address /*place*/, std::size_t /*bytes*/) noexcept override {}
    std::size_t available() override { return driver_.memory().free; }

   private:
    Driver& driver_;
};

}  // namespace

std::unique_ptr<DeviceMemory> make_driver_memory(Driver& driver) {
    return std::make_unique<DriverMemory>(driver);
}

}  // namespace dormouse
