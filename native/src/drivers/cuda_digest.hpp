// Digests of device ranges, made by the device: the kernel of cuda_digest_kernel.hpp, its memory, and its launches.
//
// No kernel means no digests, and a reason (cuda_kernel.hpp). The slots that the sums meet in, and the pinned memory
// that they are fetched to, are made with the kernel and kept: a digest allocates nothing, for allocating would wait
// for the device.
#pragma once

#include <cstdint>
#include <mutex>
#include <span>
#include <string>

#include "cuda_kernel.hpp"
#include "dormouse/driver.hpp"

namespace dormouse::cuda {

class DeviceDigest {
   public:
    // Both must outlive it.
    DeviceDigest(const Api& api, const PrimaryContext& context, Device device);
    ~DeviceDigest();
    DeviceDigest(const DeviceDigest&) = delete;
    DeviceDigest& operator=(const DeviceDigest&) = delete;

    bool ready() noexcept { return kernel_.ready(); }
    std::string problem() { return kernel_.problem(); }
    // One call at a time: others wait. Throws illegal_state where it is not ready.
    void run(std::span<const Range> ranges, std::span<std::uint64_t> out, StreamHandle stream);

   private:
    void prepare();
    void forget() noexcept;
    void launch(Function kernel, const Range& range, DeviceAddress slot, StreamHandle stream);
    void batch(Function kernel, std::span<const Range> ranges, std::span<std::uint64_t> out, StreamHandle stream);

    const Api& api_;
    const PrimaryContext& context_;
    const Device device_;

    std::mutex running_;  // guards what the slots hold
    // As they are once the kernel is there.
    unsigned most_blocks_ = 0;
    DeviceAddress slots_ = 0;
    std::uint64_t* fetched_ = nullptr;
    Kernel kernel_;
};

}  // namespace dormouse::cuda
