#include "dormouse/chunk.hpp"

#include "dormouse/error.hpp"

namespace dormouse {

void Chunk::bring(Driver& driver, DeviceMemory& memory) {
    if (step_ == Step::none) {
        handle_ = memory.take(address_, bytes_);
        step_ = Step::taken;
    }
    if (step_ == Step::taken) {
        driver.map(address_, bytes_, *handle_);
        step_ = Step::mapped;
    }
    if (step_ == Step::mapped) {
        driver.allow(address_, bytes_);
        step_ = Step::usable;
    }
    if (driver.mapping_keeps_memory()) {
        try {
            let_go(memory);
        } catch (const error&) {
            // The memory is usable all the same; give_back() tries again.
        }
    }
}

void Chunk::give_back(Driver& driver, DeviceMemory& memory) {
    if (step_ == Step::usable || step_ == Step::mapped) {
        driver.unmap(address_, bytes_);
        step_ = Step::taken;
    }
    if (step_ == Step::taken) {
        let_go(memory);
        step_ = Step::none;
        memory.returned(address_, bytes_);
    }
}

void Chunk::let_go(DeviceMemory& memory) {
    if (handle_) {
        memory.let_go(*handle_);
        handle_.reset();
    }
}

}  // namespace dormouse
