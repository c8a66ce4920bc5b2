// Streams and the copies that they carry out, when somebody waits for them.
#include <algorithm>
#include <cstring>
#include <utility>

#include "cuda_fake_device.hpp"

using namespace fake;

namespace {

constexpr unsigned non_blocking = 1;

Result create(const char* symbol, Stream** stream, unsigned flags) {
    if (stream == nullptr || (flags & ~non_blocking) != 0)
        return violate(invalid_value, "%s: flags %#x, or no place for the stream", symbol, flags);
    auto fresh = std::make_shared<Stream>();
    *stream = fresh.get();
    const std::lock_guard lock(device().mutex);
    device().streams.emplace(fresh.get(), std::move(fresh));
    live("streams", 1);
    return success;
}

Result unknown_stream(const char* symbol, const Stream* stream) {
    return violate(invalid_handle, "%s: %p is no stream", symbol, static_cast<const void*>(stream));
}

enum class Direction { to_device, to_host };

Result copy(const char* symbol, DevicePointer on_device, void* on_host, std::size_t bytes, Direction direction,
            Stream* stream) {
    const auto host = reinterpret_cast<std::uint64_t>(on_host);
    const bool down = direction == Direction::to_host;
    const std::lock_guard lock(device().mutex);
    const auto target = device().find(stream);
    if (!target) return unknown_stream(symbol, stream);
    if (bytes == 0) return success;
    if (!device().reachable(on_device, bytes, !down))
        return violate(invalid_value, "%s: no access to device memory %#lx + %#zx", symbol, on_device, bytes);
    if (!device().pinned(host, bytes, down))
        return violate(invalid_value, "%s: %p + %#zx is not inside one pinned range", symbol, on_host, bytes);
    void* const from = down ? reinterpret_cast<void*>(on_device) : on_host;
    void* const to = down ? on_host : reinterpret_cast<void*>(on_device);
    target->queue.push_back({{Span{on_device, bytes}, Span{host, bytes}, Span{}},
                             bytes,
                             [to, from, bytes] { std::memcpy(to, from, bytes); },
                             !down});
    return success;
}

}  // namespace

FAKE_EXPORT Result cuStreamCreate(Stream** stream, unsigned flags) {
    FAKE_BEGIN(context);
    return create(__func__, stream, flags);
}

FAKE_EXPORT Result cuStreamCreateWithPriority(Stream** stream, unsigned flags, [[maybe_unused]] int priority) {
    FAKE_BEGIN(context);
    return create(__func__, stream, flags);  // any priority is legal: the driver moves it into the range
}

FAKE_EXPORT Result cuStreamDestroy_v2(Stream* stream) {
    FAKE_BEGIN(context);
    const std::lock_guard lock(device().mutex);
    const auto found = device().streams.find(stream);
    if (found == device().streams.end()) return unknown_stream(__func__, stream);
    // Its work is still done, some time: whoever needs to know when must have waited before.
    if (found->second->queue.empty())
        device().graveyard.push_back(std::move(found->second));
    else
        device().orphans.push_back(std::move(found->second));
    device().streams.erase(found);
    live("streams", -1);
    return success;
}

FAKE_EXPORT Result cuStreamSynchronize(Stream* stream) {
    FAKE_BEGIN(context);
    std::shared_ptr<Stream> target;
    {
        const std::lock_guard lock(device().mutex);
        target = device().find(stream);
    }
    if (!target) return unknown_stream(__func__, stream);
    drain(*target);
    return success;
}

FAKE_EXPORT Result cuStreamQuery(Stream* stream) {
    FAKE_BEGIN(context);
    std::shared_ptr<Stream> target;
    bool engine_is_needed = false;
    {
        const std::lock_guard lock(device().mutex);
        target = device().find(stream);
        if (!target) return unknown_stream(__func__, stream);
        engine_is_needed = std::ranges::any_of(target->queue, &Work::by_engine);
    }
    if (engine_is_needed && stalls()) return not_ready;
    drain(*target);  // a device that nothing holds up is done as soon as somebody looks
    return success;
}

FAKE_EXPORT Result cuCtxSynchronize() {
    FAKE_BEGIN(context);
    std::vector<std::shared_ptr<Stream>> all;
    {
        const std::lock_guard lock(device().mutex);
        all = device().orphans;
        all.push_back(device().default_stream);
        for (const auto& [key, stream] : device().streams) all.push_back(stream);
    }
    for (const auto& stream : all) drain(*stream);
    const std::lock_guard lock(device().mutex);
    std::erase_if(device().orphans, [](const auto& stream) { return stream->queue.empty(); });
    return success;
}

FAKE_EXPORT Result cuMemcpyHtoDAsync_v2(DevicePointer to, const void* from, std::size_t bytes, Stream* stream) {
    FAKE_BEGIN(context);
    return copy(__func__, to, const_cast<void*>(from), bytes, Direction::to_device, stream);
}

FAKE_EXPORT Result cuMemcpyDtoHAsync_v2(void* to, DevicePointer from, std::size_t bytes, Stream* stream) {
    FAKE_BEGIN(context);
    return copy(__func__, from, to, bytes, Direction::to_host, stream);
}

FAKE_EXPORT Result cuMemsetD8Async(DevicePointer to, unsigned char value, std::size_t bytes, Stream* stream) {
    FAKE_BEGIN(context);
    const std::lock_guard lock(device().mutex);
    const auto target = device().find(stream);
    if (!target) return unknown_stream(__func__, stream);
    if (bytes == 0) return success;
    if (!device().reachable(to, bytes, true))
        return violate(invalid_value, "cuMemsetD8Async: no access to device memory %#lx + %#zx", to, bytes);
    target->queue.push_back({{Span{to, bytes}, Span{}, Span{}},
                             0,
                             [to, value, bytes] { std::memset(reinterpret_cast<void*>(to), value, bytes); },
                             false});
    return success;
}
