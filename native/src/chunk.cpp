#include "dormouse/chunk.hpp"

namespace dormouse {

void Chunk::bring(Driver& driver, DeviceMemory& memory) {
    if (step_ == Step::none) {
        physical_ = memory.take(bytes_);
        step_ = Step::taken;
    }
    if (step_ == Step::taken) {
        driver.map(address_, bytes_, physical_);
        step_ = Step::mapped;
    }
    if (step_ == Step::mapped) {
        driver.allow(address_, bytes_);
        step_ = Step::usable;
    }
}

void Chunk::give_back(Driver& driver, DeviceMemory& memory) {
    if (step_ == Step::usable || step_ == Step::mapped) {
        driver.unmap(address_, bytes_);
        step_ = Step::taken;
    }
    if (step_ == Step::taken) {
        memory.give_back(physical_, bytes_);
        step_ = Step::none;
    }
}

}  // namespace dormouse
