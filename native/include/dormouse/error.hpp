// What can go wrong, as types. Every error of the pool is one of these; each says what to do.
//
// The pool never calls exit or abort and lets nothing of this cross a C boundary: torch_abi.cpp turns it into NULL
// and bindings.cpp into Python exceptions.
#pragma once

#include <cstddef>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>

namespace dormouse {

// Base of all errors below; catch it to catch them all.
class error : public std::runtime_error {
   public:
    using std::runtime_error::runtime_error;
};

// The device has no room for `needed` bytes. Nothing was lost; the same call may work later.
class out_of_memory : public error {
   public:
    out_of_memory(std::size_t needed, std::size_t available, std::string_view what);
    std::size_t needed;
    std::size_t available;
};

// Host memory for a backup can't be had: RAM, the cgroup's limit or RLIMIT_MEMLOCK. Raised before anything is lost.
class host_out_of_memory : public error {
   public:
    host_out_of_memory(std::size_t needed, std::size_t available, std::string_view what);
    std::size_t needed;
    std::size_t available;
};

// A call of the driver's library failed: its name and the code that it answered.
class driver_error : public error {
   public:
    driver_error(std::string_view call, int code, std::string_view text);
    std::string call;
    int code;
};

// The call makes no sense in the state that the pool is in; the state is unchanged.
class illegal_state : public error {
   public:
    using error::error;
};

// An argument that can't be right: an unknown tag, level, driver or address.
class invalid_argument : public error {
   public:
    using error::error;
};

// That no thread could be started for `what`, such as "a staging".
error no_thread(std::string_view what, const std::system_error& cause);

// "61.0 GiB", for messages.
std::string readable(std::size_t bytes);

}  // namespace dormouse
