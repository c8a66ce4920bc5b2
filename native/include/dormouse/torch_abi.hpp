// The C functions that torch's CUDAPluggableAllocator and NPUPluggableAllocator load from this library.
//
// A thread allocates under the tag that it set (use_tag); without one, under "default". One pool per device can be
// installed; it lives until the process ends, because torch frees late.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "dormouse/pool.hpp"

extern "C" {
// NULL when the memory can't be had; the reason is kept for dormouse_last_error().
__attribute__((visibility("default"))) void* dormouse_malloc(std::size_t bytes, int device, void* stream);
__attribute__((visibility("default"))) void dormouse_free(void* address, std::size_t bytes, int device, void* stream);
// Of this thread's last failed call; never NULL.
__attribute__((visibility("default"))) const char* dormouse_last_error(void);
}

namespace dormouse {

// Serves torch's allocations on `device` from `pool` from now on. Throws illegal_state if another pool does already.
void install(std::shared_ptr<Pool> pool, int device);
std::shared_ptr<Pool> installed(int device) noexcept;

// The tag of this thread; returns the one before.
std::string set_tag(std::string tag);

}  // namespace dormouse
