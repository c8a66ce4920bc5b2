#include "cuda_digest.hpp"

#include <algorithm>

#include "cuda_digest_kernel.hpp"
#include "dormouse/error.hpp"

namespace dormouse::cuda {
namespace {

constexpr std::size_t slots = 4096;  // ranges that are launched before anybody waits
constexpr std::size_t slots_bytes = slots * sizeof(std::uint64_t);
constexpr unsigned blocks_per_multiprocessor = 4;  // as many as the kernel promises to fit (.minnctapersm)
constexpr std::size_t vector_bytes = 16;

}  // namespace

DeviceDigest::DeviceDigest(const Api& api, const PrimaryContext& context, Device device)
    : api_(api),
      context_(context),
      device_(device),
      kernel_(api, context, {digest_kernel, digest_entry, "makes no digests"}, [this] { prepare(); }) {}

DeviceDigest::~DeviceDigest() {
    try {
        const PrimaryContext::Scope scope(context_);
        forget();
    } catch (const error&) {
        // The library is shutting down, and everything of ours went with it.
    }
}

void DeviceDigest::prepare() {
    try {
        int multiprocessors = 0;
        api_.check(api_.device_attribute, &multiprocessors, attribute_multiprocessors, device_);
        most_blocks_ = static_cast<unsigned>(std::max(multiprocessors, 1)) * blocks_per_multiprocessor;
        api_.check_room(slots_bytes, api_.device_allocate, &slots_, slots_bytes);
        void* fetched = nullptr;
        api_.check(api_.host_allocate, &fetched, slots_bytes, host_portable);
        fetched_ = static_cast<std::uint64_t*>(fetched);
    } catch (...) {
        forget();
        throw;
    }
}

void DeviceDigest::forget() noexcept {
    if (fetched_ != nullptr) api_.host_free(fetched_);
    if (slots_ != 0) api_.device_free(slots_);
    fetched_ = nullptr;
    slots_ = 0;
}

void DeviceDigest::run(std::span<const Range> ranges, std::span<std::uint64_t> out, StreamHandle stream) {
    if (out.size() < ranges.size()) throw invalid_argument("fewer places for digests than ranges");
    for (const Range& range : ranges) {
        if (range.address % vector_bytes != 0 || range.bytes % vector_bytes != 0) {
            throw invalid_argument("a digest is made of ranges that are multiples of 16 bytes");
        }
    }
    const Function kernel = kernel_.get();
    const std::lock_guard lock(running_);
    const PrimaryContext::Scope scope(context_);
    for (std::size_t done = 0; done < ranges.size(); done += slots) {
        const std::size_t count = std::min(slots, ranges.size() - done);
        batch(kernel, ranges.subspan(done, count), out.subspan(done, count), stream);
    }
}

void DeviceDigest::batch(Function kernel, std::span<const Range> ranges, std::span<std::uint64_t> out,
                         StreamHandle stream) {
    try {
        const std::size_t bytes = ranges.size() * sizeof(std::uint64_t);
        api_.check_room(0, api_.fill, slots_, static_cast<unsigned char>(0), bytes, stream);
        for (std::size_t i = 0; i < ranges.size(); ++i) {
            launch(kernel, ranges[i], slots_ + i * sizeof(std::uint64_t), stream);
        }
        api_.check(api_.copy_to_host, fetched_, slots_, bytes, stream);
        api_.check(api_.stream_synchronize, stream);
        std::copy_n(fetched_, ranges.size(), out.begin());
    } catch (...) {
        // The slots are the next call's: whatever has been launched must be done with them.
        api_.stream_synchronize(stream);
        throw;
    }
}

void DeviceDigest::launch(Function kernel, const Range& range, DeviceAddress slot, StreamHandle stream) {
    if (range.bytes == 0) return;
    // Enough blocks to fill the device, but no thread without its four loads, if that can be.
    constexpr std::size_t block_bytes = std::size_t{digest_threads} * digest_unrolled * vector_bytes;
    const std::size_t wanted = (range.bytes + block_bytes - 1) / block_bytes;
    const auto blocks = static_cast<unsigned>(std::min<std::size_t>(wanted, most_blocks_));
    std::uint64_t address = range.address;
    std::uint64_t words = range.bytes / sizeof(std::uint64_t);
    std::uint64_t first_word = 0;
    void* parameters[] = {&address, &words, &first_word, &slot};
    api_.check_room(0, api_.launch, kernel, blocks, 1, 1, digest_threads, 1, 1, 0, stream, parameters, nullptr);
}

}  // namespace dormouse::cuda
