#include "cuda_fake_device.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>

namespace fake {
namespace {

thread_local Context* current = nullptr;

}  // namespace

Device& device() {
    static Device* const instance = new Device;  // never destroyed: calls may come while the process ends
    return *instance;
}

bool Device::reachable(std::uint64_t address, std::size_t bytes, bool write) const {
    const int wanted = write ? access_write : access_read;
    if (auto after = allocations.upper_bound(address); after != allocations.begin()) {
        const auto& [start, allocation] = *std::prev(after);
        if (address - start < allocation.bytes) return bytes <= allocation.bytes - (address - start);
    }
    auto mapping = mappings.upper_bound(address);
    if (mapping == mappings.begin()) return false;
    --mapping;
    // One copy may span mappings that lie side by side.
    while (mapping != mappings.end() && mapping->first <= address) {
        const std::size_t inside = address - mapping->first;
        if (inside >= mapping->second.bytes || (mapping->second.access & wanted) != wanted) return false;
        const std::size_t here = mapping->second.bytes - inside;
        if (bytes <= here) return true;
        bytes -= here;
        address += here;
        ++mapping;
    }
    return false;
}

bool Device::pinned(std::uint64_t address, std::size_t bytes, bool write) const {
    const auto after = host.upper_bound(address);
    if (after == host.begin()) return false;
    const auto& [start, range] = *std::prev(after);
    if (write && range.read_only) return false;
    return address - start < range.bytes && bytes <= range.bytes - (address - start);
}

bool Device::busy(std::uint64_t address, std::size_t bytes) const {
    const auto touches = [&](const Work& work) {
        return std::ranges::any_of(work.touches, [&](const Span& span) { return span.overlaps(address, bytes); });
    };
    const auto waits = [&](const std::shared_ptr<Stream>& stream) {
        return std::ranges::any_of(stream->queue, touches);
    };
    return waits(default_stream) || std::ranges::any_of(orphans, waits) ||
           std::ranges::any_of(streams, [&](const auto& entry) { return waits(entry.second); });
}

std::shared_ptr<Stream> Device::find(Stream* stream) const {
    if (stream == nullptr) return default_stream;
    const auto found = streams.find(stream);
    return found == streams.end() ? nullptr : found->second;
}

void Device::drop_if_unused(Handle handle) {
    const auto found = physicals.find(handle);
    if (!found->second.released || found->second.mappings > 0) return;
    storage.destroy(found->second.offset, found->second.bytes);
    give(found->second.bytes);
    physicals.erase(found);
}

void Device::forget() {
    for (const auto& [address, bytes] : reservations) release_space(address, bytes);
    for (const auto& [address, allocation] : allocations) release_space(address, allocation.held);
    for (const auto& [address, range] : host)
        if (range.ours) munmap(reinterpret_cast<void*>(address), range.bytes);
    reservations.clear();
    physicals.clear();
    mappings.clear();
    allocations.clear();
    host.clear();
    for (auto& [key, stream] : streams) graveyard.push_back(std::move(stream));
    for (auto& [key, module] : modules) graveyard.push_back(std::move(module));
    for (auto& [key, function] : functions) graveyard.push_back(std::move(function));
    if (context) graveyard.push_back(std::move(context));
    streams.clear();
    modules.clear();
    functions.clear();
    orphans.clear();
    default_stream->queue.clear();
    storage.clear();
    process = 0;
}

void forget() {
    const std::lock_guard lock(device().mutex);
    device().forget();
}

void drain(Stream& stream) {
    const std::lock_guard executing(stream.running);
    const auto waiting = [&stream] {
        const std::lock_guard lock(device().mutex);
        return stream.queue.size();
    };
    // Only what is there now: others may go on adding for ever.
    for (std::size_t left = waiting(); left > 0; --left) {
        const Work* work = nullptr;
        {
            const std::lock_guard lock(device().mutex);
            work = &stream.queue.front();  // a deque's elements stay where they are while others are added
        }
        if (work->by_engine) sit_out_the_stall();
        pace(work->copied);
        work->run();
        const std::lock_guard lock(device().mutex);
        stream.queue.pop_front();
    }
}

Result begin(const char* symbol, Needs needs) {
    if (const int code = enter(symbol); code != 0) return code;
    if (needs == Needs::nothing) return success;
    const std::lock_guard lock(device().mutex);
    if (device().process == 0) return violate(not_initialized, "%s: cuInit was not called", symbol);
    if (device().process != getpid()) return violate(not_initialized, "%s: called in a forked child", symbol);
    if (needs == Needs::context && current_context() == nullptr)
        return violate(invalid_context, "%s: no context is current on this thread", symbol);
    return success;
}

Context* current_context() {
    return current != nullptr && current == device().context.get() ? current : nullptr;
}

void set_current_context(Context* context) {
    current = context;
}

}  // namespace fake
