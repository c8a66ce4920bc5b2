// The fake device: every object that the fake library handed out, behind one lock.
//
// The library's functions check a call against the objects here, refuse what breaks a rule, and change them. Work of
// a stream runs when somebody waits for it, on the thread that waits: a forgotten wait shows as wrong bytes, every
// time.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "cuda_fake_abi.hpp"
#include "cuda_fake_storage.hpp"
#include "fake_state.hpp"

namespace fake {

inline constexpr int driver_version = 12080;

struct Span {
    std::uint64_t address = 0;
    std::size_t bytes = 0;
    bool overlaps(std::uint64_t other, std::size_t other_bytes) const {
        return bytes > 0 && address < other + other_bytes && other < address + bytes;
    }
};

struct Work {
    std::array<Span, 3> touches;  // device or host memory: they share one address space here
    std::size_t copied = 0;       // bytes that cross the link
    std::function<void()> run;
    bool by_engine = false;  // the copy engine's, towards the device
};

struct Stream {
    std::mutex running;      // held by whoever executes; taken before the device's lock
    std::deque<Work> queue;  // under the device's lock; what runs is still its front
};

struct Context {
    unsigned retained = 0;
};

struct Physical {
    std::size_t bytes = 0;
    off_t offset = 0;
    bool released = false;
    unsigned mappings = 0;
};

struct Mapping {
    std::size_t bytes = 0;
    Handle physical = 0;
    int access = access_none;
};

struct Allocation {  // of cuMemAlloc
    std::size_t bytes = 0;
    std::size_t held = 0;  // bytes with rounding
    off_t offset = 0;
};

struct HostRange {
    std::size_t bytes = 0;
    bool ours = false;       // from cuMemHostAlloc
    bool read_only = false;  // registered so
};

struct Module {
    std::string entry;  // the one kernel's name
};
struct Function {
    Module* module;
};

struct Device {
    std::mutex mutex;
    int process = 0;  // that called cuInit; 0 before
    std::unique_ptr<Context> context;
    Storage storage;
    Handle next_handle = 0x5000'0001;
    std::map<std::uint64_t, std::size_t> reservations;
    std::map<Handle, Physical> physicals;
    std::map<std::uint64_t, Mapping> mappings;
    std::map<std::uint64_t, Allocation> allocations;
    std::map<std::uint64_t, HostRange> host;
    std::map<Stream*, std::shared_ptr<Stream>> streams;
    std::shared_ptr<Stream> default_stream = std::make_shared<Stream>();
    std::vector<std::shared_ptr<Stream>> orphans;  // destroyed with work left
    std::map<Module*, std::unique_ptr<Module>> modules;
    std::map<Function*, std::unique_ptr<Function>> functions;
    // Objects keep their addresses to themselves for ever: a stale pointer never fits a new object.
    std::vector<std::shared_ptr<void>> graveyard;

    // The following want the lock held.

    // Whether all of a range is device memory that may be read (or written).
    bool reachable(std::uint64_t address, std::size_t bytes, bool write) const;
    // Whether host memory lies wholly inside one pinned range, writable if it must be.
    bool pinned(std::uint64_t address, std::size_t bytes, bool write) const;
    // Whether work that did not run yet touches a range.
    bool busy(std::uint64_t address, std::size_t bytes) const;
    // The stream of a handle (NULL is the default one); empty when there is none.
    std::shared_ptr<Stream> find(Stream* stream) const;
    // Gives a physical allocation's memory back once neither handle nor mapping holds it.
    void drop_if_unused(Handle handle);
    void forget();
};

Device& device();

// Runs what is queued on a stream now, in order. Call it without the lock.
void drain(Stream& stream);

// What a call needs before it may do anything. Answers the injected fault or the vendor's refusal, else 0.
enum class Needs { nothing, init, context };
Result begin(const char* symbol, Needs needs);

// The context that is current on this thread; NULL when there is none or it is gone. Wants the lock held.
Context* current_context();
void set_current_context(Context* context);

}  // namespace fake

// The first line of every exported function: logs it under its own name.
#define FAKE_BEGIN(needs) \
    if (const fake::Result code = fake::begin(__func__, fake::Needs::needs); code != fake::success) return code
