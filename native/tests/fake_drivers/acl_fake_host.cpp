// Host memory that copies can use.
#include <cstdlib>
#include <cstring>

#include "acl_fake.hpp"

namespace fake::acl {
namespace {

// The start of the block that holds `address`, or the end.
auto holding(const std::map<Number, std::size_t>& blocks, Number address) {
    auto found = blocks.upper_bound(address);
    if (found == blocks.begin()) return blocks.end();
    --found;
    return address < found->first + found->second ? found : blocks.end();
}

// One copy must not run over two blocks, even where they touch.
bool within_one(const std::map<Number, std::size_t>& blocks, Number address, std::size_t bytes) {
    const auto found = holding(blocks, address);
    return found != blocks.end() && address + bytes <= found->first + found->second;
}

[[maybe_unused]] bool overlaps(const std::map<Number, std::size_t>& blocks, Number address, std::size_t bytes) {
    const auto next = blocks.lower_bound(address);
    return (next != blocks.end() && next->first < address + bytes) || holding(blocks, address) != blocks.end();
}

}  // namespace

bool pinned(Number address, std::size_t bytes) {
    return within_one(model().host_blocks, address, bytes) || within_one(model().registered, address, bytes);
}

void forget_host() {
    for (const auto& [address, bytes] : model().host_blocks) std::free(pointer(address));
    model().host_blocks.clear();
    model().registered.clear();
}

}  // namespace fake::acl

using namespace fake::acl;

FAKE_EXPORT int aclrtMallocHost(void** address, std::size_t bytes) {
    const Call call("aclrtMallocHost");
    if (call.code != 0) return call.code;
    if (bytes == 0) return fake::violate(invalid_parameter, "aclrtMallocHost: 0 bytes");
    void* block = std::aligned_alloc(page, (bytes + page - 1) / page * page);
    if (block == nullptr) return no_memory;
    std::memset(block, FAKE_POISON, bytes);
    model().host_blocks[number(block)] = bytes;
    fake::live("host", 1);
    *address = block;
    return 0;
}

FAKE_EXPORT int aclrtFreeHost(void* address) {
    const Call call("aclrtFreeHost");
    if (call.code != 0) return call.code;
    const auto found = model().host_blocks.find(number(address));
    if (found == model().host_blocks.end())
        return fake::violate(invalid_parameter, "aclrtFreeHost: %p is not from aclrtMallocHost", address);
    if (in_flight(found->first, found->second))
        return fake::violate(invalid_parameter, "aclrtFreeHost: a copy of %p is under way", address);
    model().host_blocks.erase(found);
    std::free(address);
    fake::live("host", -1);
    return 0;
}

#ifndef FAKE_OLD_CANN

FAKE_EXPORT int aclrtHostRegisterV2(void* address, std::uint64_t bytes, std::uint32_t flags) {
    constexpr std::uint32_t host_mapped = 0x2, host_pinned = 0x10000000;
    const Call call("aclrtHostRegisterV2");
    if (call.code != 0) return call.code;
    if ((flags & host_pinned) == 0 || (flags & ~(host_mapped | host_pinned)) != 0)
        return fake::violate(invalid_parameter, "aclrtHostRegisterV2: flags %#x don't pin", flags);
    if (bytes == 0) return fake::violate(invalid_parameter, "aclrtHostRegisterV2: 0 bytes");
    if (number(address) % page != 0) return fake::violate(unaligned, "aclrtHostRegisterV2: %p", address);
    if (overlaps(model().registered, number(address), bytes) || overlaps(model().host_blocks, number(address), bytes))
        return fake::violate(invalid_parameter, "aclrtHostRegisterV2: %p is pinned already", address);
    model().registered[number(address)] = bytes;
    fake::live("pinned", 1);
    return 0;
}

#endif

FAKE_EXPORT int aclrtHostUnregister(void* address) {
    const Call call("aclrtHostUnregister");
    if (call.code != 0) return call.code;
    const auto found = model().registered.find(number(address));
    if (found == model().registered.end())
        return fake::violate(invalid_parameter, "aclrtHostUnregister: %p is not registered", address);
    if (in_flight(found->first, found->second))
        return fake::violate(invalid_parameter, "aclrtHostUnregister: a copy of %p is under way", address);
    model().registered.erase(found);
    fake::live("pinned", -1);
    return 0;
}
