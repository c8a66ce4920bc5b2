// What this project needs to know of the CUDA driver's binary interface, in its own words: building takes no header of
// the vendor's. Layouts are the ones that libcuda.so.1 has had since CUDA 11; tests compare all of this with cuda.h
// where there is one.
#pragma once

#include <cstddef>
#include <cstdint>

namespace dormouse::cuda {

using Result = int;
using Device = int;
using Context = void*;
using Module = void*;
using Function = void*;
using StreamHandle = void*;
using DeviceAddress = std::uint64_t;
using Handle = std::uint64_t;

enum : Result {
    success = 0,
    error_out_of_memory = 2,
    error_not_ready = 600,
    error_not_supported = 801,
};

// Attributes of a device.
enum : int {
    attribute_multiprocessors = 16,
    attribute_host_address_of_registered_memory = 91,
    attribute_virtual_memory = 102,
    attribute_rdma_with_virtual_memory = 110,
};

enum : int { allocation_pinned = 1 };
enum : int { handle_none = 0 };
enum : int { location_device = 1 };
enum : int { access_read_write = 3 };
enum : int { granularity_minimum = 0 };
enum : unsigned { host_portable = 1 };
enum : unsigned { stream_non_blocking = 1 };

struct Location {
    int type;
    int id;
};

// CUmemAllocationProp: everything that is not set must be zero.
struct AllocationProperties {
    int type;
    int requested_handle_types;
    Location location;
    void* win32_security;
    std::uint8_t compression_type;
    std::uint8_t rdma_capable;
    std::uint16_t usage;
    std::uint8_t reserved[4];
};

// CUmemAccessDesc.
struct Access {
    Location location;
    int flags;
};

// CUuuid.
struct Uuid {
    std::uint8_t bytes[16];
};

static_assert(sizeof(Location) == 8 && offsetof(Location, id) == 4);
static_assert(sizeof(AllocationProperties) == 32 && alignof(AllocationProperties) == alignof(void*));
static_assert(offsetof(AllocationProperties, requested_handle_types) == 4);
static_assert(offsetof(AllocationProperties, location) == 8);
static_assert(offsetof(AllocationProperties, win32_security) == 16);
static_assert(offsetof(AllocationProperties, compression_type) == 24);
static_assert(offsetof(AllocationProperties, rdma_capable) == 25);
static_assert(offsetof(AllocationProperties, usage) == 26);
static_assert(offsetof(AllocationProperties, reserved) == 28);
static_assert(sizeof(Access) == 12 && offsetof(Access, flags) == 8);
static_assert(sizeof(Uuid) == 16);

}  // namespace dormouse::cuda
