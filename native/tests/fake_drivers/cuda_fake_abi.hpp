// The part of the CUDA driver's binary interface that the fake speaks, declared by ourselves: no SDK is needed.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fake {

using Result = int;
using DevicePointer = std::uint64_t;
using Handle = std::uint64_t;

enum Code : Result {
    success = 0,
    invalid_value = 1,
    out_of_memory = 2,
    not_initialized = 3,
    invalid_image = 200,
    invalid_context = 201,
    invalid_device = 101,
    operating_system = 304,
    invalid_handle = 400,
    not_found = 500,
    not_ready = 600,
    illegal_address = 700,
    already_registered = 712,
    not_registered = 713,
    misaligned_address = 716,
    not_supported = 801,
};

inline constexpr int location_device = 1;
inline constexpr int type_pinned = 1;
inline constexpr int access_none = 0;
inline constexpr int access_read = 1;
inline constexpr int access_write = 3;

struct Location {
    std::int32_t type;
    std::int32_t id;
};

struct Prop {
    std::int32_t type;
    std::int32_t handle_types;
    Location location;
    void* win32;
    std::uint8_t compression;
    std::uint8_t rdma;
    std::uint16_t usage;
    std::uint8_t reserved[4];
};
static_assert(sizeof(Prop) == 32 && offsetof(Prop, location) == 8 && offsetof(Prop, win32) == 16);
static_assert(offsetof(Prop, compression) == 24 && offsetof(Prop, usage) == 26 && offsetof(Prop, reserved) == 28);

struct Access {
    Location location;
    std::int32_t flags;
};
static_assert(sizeof(Access) == 12 && offsetof(Access, flags) == 8);

struct Uuid {
    std::uint8_t bytes[16];
};
static_assert(sizeof(Uuid) == 16);

}  // namespace fake
