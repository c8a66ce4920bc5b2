// AscendCL's C ABI, as far as the pool uses it: types, struct layouts, constants.
//
// Written down here, so that building needs no CANN kit. The layouts are held by static_assert. Mind the location: its
// id comes before its type, the other way round than in CUDA.
#pragma once

#include <cstddef>
#include <cstdint>

namespace dormouse::acl {

using Error = int;
using Context = void*;
using StreamHandle = void*;
using Handle = void*;  // of physical memory

// Codes. 1xxxxx: the caller's mistake, 2xxxxx: resources, 5xxxxx: inside the device or its driver.
inline constexpr Error success = 0;
inline constexpr Error repeat_initialize = 100002;
inline constexpr Error memory_allocation = 207001;

// Memory attributes; also what aclrtGetMemInfo is asked about.
inline constexpr std::int32_t hbm_memory = 1;  // all pages
inline constexpr std::int32_t hbm_huge = 4;    // pages of 2 MiB
inline constexpr std::int32_t hbm_normal = 5;

inline constexpr std::int32_t handle_type_none = 0;
inline constexpr std::int32_t allocation_type_pinned = 0;
inline constexpr std::int32_t location_type_device = 1;

inline constexpr int granularity_minimum = 0;

// Pages of a reservation: 0 normal, 1 huge. The documentation wants them to be those of the memory that is mapped;
// vllm-ascend reserves with 0 and maps huge pages, torch_npu and HCCL reserve with 1. 0 suits both kinds of page that
// this driver maps, and is what engines run in production, so it is used; not proven on every version of CANN.
inline constexpr std::uint64_t reserve_flags = 0;

inline constexpr int host_to_device = 1;
inline constexpr int device_to_host = 2;

inline constexpr std::uint32_t host_register_pinned = 0x10000000;

// Priorities of streams run from 0, the highest, to 7. On A2 and A3 before CANN 9.1 there is 0 alone.
inline constexpr std::uint32_t only_priority = 0;
inline constexpr std::uint32_t lowest_priority = 7;

struct Location {
    std::uint32_t id;
    std::int32_t type;
};

struct PhysicalProperties {
    std::int32_t handle_type;
    std::int32_t allocation_type;
    std::int32_t memory_attribute;
    Location location;
    std::uint64_t reserve;
};

static_assert(sizeof(Location) == 8);
static_assert(offsetof(Location, id) == 0);
static_assert(offsetof(Location, type) == 4);
static_assert(sizeof(PhysicalProperties) == 32);
static_assert(alignof(PhysicalProperties) == 8);
static_assert(offsetof(PhysicalProperties, handle_type) == 0);
static_assert(offsetof(PhysicalProperties, allocation_type) == 4);
static_assert(offsetof(PhysicalProperties, memory_attribute) == 8);
static_assert(offsetof(PhysicalProperties, location) == 12);
static_assert(offsetof(PhysicalProperties, reserve) == 24);

}  // namespace dormouse::acl
