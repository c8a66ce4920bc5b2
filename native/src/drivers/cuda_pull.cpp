#include "cuda_pull.hpp"

#include <algorithm>

#include "cuda_pull_kernel.hpp"
#include "dormouse/error.hpp"

namespace dormouse::cuda {
namespace {

constexpr std::size_t vector_bytes = 16;

void expect_host_addresses(const Api& api, Device device) {
    int same = 0;
    api.check(api.device_attribute, &same, attribute_host_address_of_registered_memory, device);
    if (same == 0) {
        throw driver_error(api.host_register.name(), error_not_supported,
                           "the device can't use the host's addresses of registered memory");
    }
}

}  // namespace

DevicePull::DevicePull(const Api& api, const PrimaryContext& context, Device device)
    : api_(api), context_(context), kernel_(api, context, {pull_kernel, pull_entry, "pulls nothing"}, [&api, device] {
          expect_host_addresses(api, device);
      }) {}

void DevicePull::run(DeviceAddress to, const void* from, std::size_t bytes, StreamHandle stream) {
    auto source = reinterpret_cast<DeviceAddress>(from);
    if (to % vector_bytes != 0 || source % vector_bytes != 0 || bytes % vector_bytes != 0) {
        throw invalid_argument("a pull goes from and to multiples of 16 bytes, and takes multiples of them");
    }
    const Function kernel = kernel_.get();
    if (bytes == 0) return;
    const PrimaryContext::Scope scope(context_);
    // No thread without its four loads, if that can be.
    constexpr std::size_t block_bytes = std::size_t{pull_threads} * pull_unrolled * vector_bytes;
    const std::size_t wanted = (bytes + block_bytes - 1) / block_bytes;
    const auto blocks = static_cast<unsigned>(std::min<std::size_t>(wanted, pull_blocks));
    std::uint64_t vectors = bytes / vector_bytes;
    void* parameters[] = {&to, &source, &vectors};
    api_.check_room(0, api_.launch, kernel, blocks, 1, 1, pull_threads, 1, 1, 0, stream, parameters, nullptr);
}

}  // namespace dormouse::cuda
