// Device memory of this process's own: created and released through its driver.
#include "dormouse/device_memory.hpp"

namespace dormouse {

namespace {

class DriverMemory final : public DeviceMemory {
   public:
    explicit DriverMemory(Driver& driver) : driver_(driver) {}
    Physical take(std::size_t bytes) override { return driver_.create(bytes); }
    void give_back(Physical physical, std::size_t /*bytes*/) override { driver_.release(physical); }
    std::size_t available() override { return driver_.memory().free; }

   private:
    Driver& driver_;
};

}  // namespace

std::unique_ptr<DeviceMemory> make_driver_memory(Driver& driver) {
    return std::make_unique<DriverMemory>(driver);
}

}  // namespace dormouse
