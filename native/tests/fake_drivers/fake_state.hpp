// What both fakes share: the side of fake_control.h that a fake's own code calls.
//
// A fake of a vendor's library keeps the vendor's objects itself. Here is what does not depend on the vendor: the log
// of calls with its injected faults, broken rules, the capacity of the device, and counts of what is held. Everything
// may be called from any thread and with the fake's own locks held: nothing here calls back, except fake_reset, which
// calls the fake's forget() without a lock.
#pragma once

#include <cstddef>
#include <cstdint>

#include "fake_control.h"

#define FAKE_EXPORT extern "C" __attribute__((visibility("default")))

namespace fake {

// Every exported function of a fake starts with `if (const int code = fake::enter("itsName")) return code;`, which
// logs the call and answers the fault that a test asked for. `symbol` must live for ever (a literal).
int enter(const char* symbol);

// Counts a broken rule, keeps its words (printf's format) and returns `code`, so that a function can end with it.
__attribute__((format(printf, 2, 3))) int violate(int code, const char* format, ...);

// Takes bytes of the device's memory, or answers false when they don't fit; give() returns them.
bool take(std::size_t bytes);
void give(std::size_t bytes);

// Of addresses and sizes of device memory, in bytes: 2 MiB, as on real devices, unless a test set less.
std::size_t granularity();

struct Memory {
    std::size_t free;
    std::size_t total;
};
Memory memory();

// Changes the count that fake_live(what) answers. Kinds: "handles", "mappings", "reservations", "pinned" (ranges
// registered), "host" (blocks of pinned memory handed out), "streams". "bytes" follows take() and give().
void live(const char* what, long change);

// Sleeps for as long as a copy of `bytes` takes (fake_copy_rate). Call it without a lock.
void pace(std::size_t bytes);

// An attribute of the device: what a test set (fake_attribute), or else `usual`.
int attribute_or(int which, int usual);

// Whether the copy engine stands still (fake_stall): asked once for each question of the caller's that it answers.
bool stalls();
// Somebody waits for the copy engine, and now it moves again.
void sit_out_the_stall();

// Each fake has one: drops all the vendor's objects, for fake_reset, which then sets all counts to 0.
void forget();

}  // namespace fake
