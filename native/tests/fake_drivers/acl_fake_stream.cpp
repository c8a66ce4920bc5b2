// Streams and asynchronous copies. A copy waits in its stream until somebody synchronises it.
#include <cstring>
#include <vector>

#include "acl_fake.hpp"

namespace fake::acl {
namespace {

// Stands for the context's default stream if `stream` is null; null if there is no such stream in this context.
std::shared_ptr<Stream> find_stream(void* stream, Number context) {
    const auto found = model().streams.find(stream == nullptr ? context : number(stream));
    return found == model().streams.end() || found->second->context != context ? nullptr : found->second;
}

// Plays all copies that wait. Expects no lock.
void play(Stream& stream) {
    const std::lock_guard alone(stream.running);
    while (true) {
        std::size_t bytes = 0;
        {
            const std::lock_guard lock(model().mutex);
            if (stream.waiting.empty()) return;
            bytes = stream.waiting.front().bytes;
        }
        pace(bytes);
        const std::lock_guard lock(model().mutex);
        if (stream.waiting.empty()) return;  // forgotten meanwhile
        const Copy& copy = stream.waiting.front();
        std::memcpy(pointer(copy.to), pointer(copy.from), copy.bytes);
        stream.waiting.pop_front();
    }
}

bool overlap(Number a, std::size_t a_bytes, Number b, std::size_t b_bytes) {
    return a < b + b_bytes && b < a + a_bytes;
}

}  // namespace

bool in_flight(Number address, std::size_t bytes) {
    for (const auto& [name, stream] : model().streams)
        for (const Copy& copy : stream->waiting)
            if (overlap(address, bytes, copy.to, copy.bytes) || overlap(address, bytes, copy.from, copy.bytes))
                return true;
    return false;
}

}  // namespace fake::acl

using namespace fake::acl;

FAKE_EXPORT int aclrtCreateStreamWithConfig(void** stream, std::uint32_t priority, std::uint32_t flags) {
    const Call call("aclrtCreateStreamWithConfig");
    if (call.code != 0) return call.code;
#ifdef FAKE_OLD_CANN
    if (priority != 0) return not_supported;  // no broken rule: whoever asks learns it
#endif
    if (priority > 7 || flags != 0)
        return fake::violate(invalid_parameter, "aclrtCreateStreamWithConfig: priority %u, flags %#x", priority, flags);
    const Number name = new_name();
    model().streams[name] = std::make_shared<Stream>();
    model().streams[name]->context = call.context;
    fake::live("streams", 1);
    *stream = pointer(name);
    return 0;
}

FAKE_EXPORT int aclrtDestroyStream(void* stream) {
    const Call call("aclrtDestroyStream");
    if (call.code != 0) return call.code;
    const auto found = stream == nullptr ? nullptr : find_stream(stream, call.context);
    if (found == nullptr) return fake::violate(wrong_context, "aclrtDestroyStream: no such stream in this context");
    if (!found->waiting.empty()) return fake::violate(invalid_parameter, "aclrtDestroyStream: copies are under way");
    model().streams.erase(number(stream));
    fake::live("streams", -1);
    return 0;
}

FAKE_EXPORT int aclrtMemcpyAsync(void* to, std::size_t room, const void* from, std::size_t bytes, int kind,
                                 void* stream) {
    constexpr int host_to_device = 1, device_to_host = 2;
    const Call call("aclrtMemcpyAsync");
    if (call.code != 0) return call.code;
    const auto found = find_stream(stream, call.context);
    if (found == nullptr) return fake::violate(wrong_context, "aclrtMemcpyAsync: no such stream in this context");
    if (kind != host_to_device && kind != device_to_host)
        return fake::violate(not_supported, "aclrtMemcpyAsync: kind %d", kind);
    if (bytes == 0 || bytes > room)
        return fake::violate(invalid_parameter, "aclrtMemcpyAsync: %zu bytes where %zu fit", bytes, room);
    if (number(to) % copy_alignment != 0 || number(from) % copy_alignment != 0)
        return fake::violate(unaligned, "aclrtMemcpyAsync: %p or %p is not aligned to 64", to, from);
    const bool down = kind == host_to_device;
    // The room that was promised must be there, too.
    if (down ? !mapped(number(to), room) : !mapped(number(from), bytes))
        return fake::violate(invalid_parameter, "aclrtMemcpyAsync: device memory that is not mapped");
    if (down ? !pinned(number(from), bytes) : !pinned(number(to), room))
        return fake::violate(invalid_parameter, "aclrtMemcpyAsync: host memory that is not pinned");
    found->waiting.push_back({number(to), number(from), bytes});
    return 0;
}

FAKE_EXPORT int aclrtSynchronizeStream(void* stream) {
    Call call("aclrtSynchronizeStream");
    if (call.code != 0) return call.code;
    const auto found = find_stream(stream, call.context);
    if (found == nullptr) return fake::violate(wrong_context, "aclrtSynchronizeStream: no such stream in this context");
    call.unlock();
    play(*found);
    return 0;
}

FAKE_EXPORT int aclrtSynchronizeDevice() {
    Call call("aclrtSynchronizeDevice");
    if (call.code != 0) return call.code;
    std::vector<std::shared_ptr<Stream>> all;
    for (const auto& [name, stream] : model().streams)
        if (model().contexts.at(stream->context) == call.device) all.push_back(stream);
    call.unlock();
    for (const auto& stream : all) play(*stream);
    return 0;
}
