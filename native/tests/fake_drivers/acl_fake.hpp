// What the fake libascendcl.so keeps: contexts, device memory, host memory and streams, behind one lock.
//
// A reservation is address space of this process without access, physical memory is a piece of one file in RAM (one
// for all: a process has few file descriptors), a mapping is that piece mapped into the reservation. So a test can
// read and write a device address as a kernel would, and a touch of memory that is not mapped faults. Copies wait in
// their stream until it is synchronised, so that a missing synchronise shows. A call that breaks a rule fails and
// changes nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>

#include "fake_state.hpp"

namespace fake::acl {

inline constexpr int invalid_parameter = 107000;
inline constexpr int invalid_device = 107001;
inline constexpr int no_context = 107002;
inline constexpr int wrong_context = 107003;
inline constexpr int unaligned = 107008;
inline constexpr int invalid_memory_type = 107016;
inline constexpr int invalid_handle = 107017;
inline constexpr int uninitialised = 100001;
inline constexpr int repeated_initialise = 100002;
inline constexpr int not_supported = 207000;
inline constexpr int no_memory = 207001;

inline constexpr std::size_t page = 4096;
inline constexpr std::size_t copy_alignment = 64;
inline constexpr std::int32_t devices = 2;
inline constexpr std::int32_t huge_pages = 4;  // memory attributes
inline constexpr std::int32_t normal_pages = 5;

using Number = std::uintptr_t;  // an address, or the name of an object; names are never used twice

struct Reservation {
    std::size_t bytes;
    Number raw;  // what mmap gave, before alignment
    std::size_t raw_bytes;
    std::uint64_t flags;
};

struct Physical {
    std::size_t bytes;
    std::int32_t device;
    std::int32_t pages;
    std::int64_t offset;  // in the file
    unsigned mappings = 0;
    bool freed = false;  // by its owner; lives on while it is mapped
};

struct Mapping {
    std::size_t bytes;
    Number handle;
};

struct Copy {
    Number to;
    Number from;
    std::size_t bytes;
};

struct Stream {
    Number context;
    std::deque<Copy> waiting;
    std::mutex running;  // held by whoever synchronises it; taken before the model's lock
};

struct Model {
    std::mutex mutex;
    bool initialised = false;
    Number last_name = 0x1000;
    std::map<Number, std::int32_t> contexts;  // and their devices
    std::map<Number, Reservation> reservations;
    std::map<Number, Physical> handles;
    std::map<Number, Mapping> mappings;
    std::map<Number, std::size_t> host_blocks;          // from aclrtMallocHost
    std::map<Number, std::size_t> registered;           // by aclrtHostRegisterV2
    std::map<Number, std::shared_ptr<Stream>> streams;  // a context's name stands for its default stream
};

Model& model();

// One call: logged, faults injected, the model locked. `code` is what to answer at once, if not 0.
class Call {
   public:
    enum class Needs { nothing, initialisation, context };
    explicit Call(const char* symbol, Needs needs = Needs::context);
    int code = 0;
    Number context = 0;  // this thread's
    std::int32_t device = -1;
    void unlock() { lock_.unlock(); }

   private:
    std::unique_lock<std::mutex> lock_;
};

// The following expect the lock.
Number new_name();
void set_current(Number context);
bool mapped(Number address, std::size_t bytes);  // by one mapping or several that touch
bool pinned(Number address, std::size_t bytes);  // within one block or range
// Whether a copy that waits reads or writes any of these bytes.
bool in_flight(Number address, std::size_t bytes);
// Parts of forget().
void forget_memory();
void forget_host();

inline Number number(const void* pointer) {
    return reinterpret_cast<Number>(pointer);
}
inline void* pointer(Number name) {
    return reinterpret_cast<void*>(name);
}

}  // namespace fake::acl
