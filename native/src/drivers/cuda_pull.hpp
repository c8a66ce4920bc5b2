// Copies by the device's own processors: the kernel of cuda_pull_kernel.hpp and its launches.
//
// No kernel means no pulls, and a reason (cuda_kernel.hpp). A source is named by its address in this process, so the
// device must know registered memory by that address.
#pragma once

#include <cstddef>
#include <string>

#include "cuda_kernel.hpp"

namespace dormouse::cuda {

class DevicePull {
   public:
    // Both must outlive it.
    DevicePull(const Api& api, const PrimaryContext& context, Device device);

    bool ready() noexcept { return kernel_.ready(); }
    std::string problem() { return kernel_.problem(); }
    // Queues a copy. Throws illegal_state where it is not ready, invalid_argument for what is not made of 16 bytes.
    void run(DeviceAddress to, const void* from, std::size_t bytes, StreamHandle stream);

   private:
    const Api& api_;
    const PrimaryContext& context_;
    Kernel kernel_;
};

}  // namespace dormouse::cuda
