// Digests of device ranges, made by the device: the kernel of cuda_digest_kernel.hpp, its memory, and its launches.
//
// The kernel is loaded when it is first asked for. A device or a library that cannot take it (a driver without its
// compiler, say) means no digests, and a reason; only a lack of memory is worth another try later. The slots that the
// sums meet in, and the pinned memory that they are fetched to, are made with the kernel and kept: a digest allocates
// nothing, for allocating would wait for the device.
#pragma once

#include <cstdint>
#include <mutex>
#include <span>
#include <string>

#include "cuda_context.hpp"
#include "dormouse/driver.hpp"

namespace dormouse::cuda {

class DeviceDigest {
   public:
    // Both must outlive it.
    DeviceDigest(const Api& api, const PrimaryContext& context, Device device);
    ~DeviceDigest();
    DeviceDigest(const DeviceDigest&) = delete;
    DeviceDigest& operator=(const DeviceDigest&) = delete;

    bool ready() noexcept;
    // Why it is not ready; empty where it is, or was never asked for.
    std::string problem();
    // One call at a time: others wait. Throws illegal_state where it is not ready.
    void run(std::span<const Range> ranges, std::span<std::uint64_t> out, StreamHandle stream);

   private:
    void load();
    void unload() noexcept;
    void require_ready();
    void launch(const Range& range, DeviceAddress slot, StreamHandle stream);
    void batch(std::span<const Range> ranges, std::span<std::uint64_t> out, StreamHandle stream);

    const Api& api_;
    const PrimaryContext& context_;
    const Device device_;

    std::mutex running_;  // guards what the slots hold
    std::mutex loading_;  // guards all below until the kernel is there; it stays as it is from then on
    bool refused_ = false;
    std::string problem_;
    unsigned most_blocks_ = 0;
    Module module_ = nullptr;
    Function kernel_ = nullptr;  // set last: the others are there if it is
    DeviceAddress slots_ = 0;
    std::uint64_t* fetched_ = nullptr;
};

}  // namespace dormouse::cuda
