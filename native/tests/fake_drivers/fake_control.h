/* How a test steers a fake driver library: exported by both fakes beside the vendor's own symbols, found by dlsym.
 *
 * The fakes enforce the vendors' rules and never forgive: a broken rule fails the call with the vendor's code and is
 * counted as a violation with a message. New physical memory is poisoned with FAKE_POISON. */
#pragma once
#include <stddef.h>

#define FAKE_POISON 0xA5

#ifdef __cplusplus
extern "C" {
#endif

/* Forget everything: memory, faults, counts. `capacity` is the device's memory in bytes. */
void fake_reset(size_t capacity);
/* The n-th call (1 is the next) of `symbol` from now on fails with `code`, and so do the `times - 1` after it.
 * A NULL symbol means any call of any symbol. */
void fake_fail(const char* symbol, unsigned n, int code, unsigned times);
/* Takes every fault back, whether it fired or not. */
void fake_heal(void);
/* Calls of `symbol` since the reset (NULL: of all). */
unsigned long fake_calls(const char* symbol);
/* The name of the k-th call since the reset (0 is the first); NULL behind the last. */
const char* fake_call_name(unsigned long k);
/* Rules broken since the reset, and the last one in words. */
unsigned long fake_violations(void);
const char* fake_last_violation(void);
/* What is held now: physical handles, mappings, reservations, pinned ranges, streams, bytes of device memory. */
unsigned long fake_live(const char* what); /* "handles" "mappings" "reservations" "pinned" "streams" "bytes" "host" */
/* Bytes that somebody else holds of the capacity. */
void fake_squat(size_t bytes);
/* Sizes and addresses of device memory are multiples of this many bytes until the next reset: less than the real 2 MiB
 * (but whole pages) makes tests quick that are about many small steps. */
void fake_granularity(size_t bytes);
/* cuda: the device clears memory. Its copy engine towards the device stands still until streams with such a copy were
 * asked (cuStreamQuery) this often whether they are done, or somebody waits for one. Kernels go on. */
void fake_stall(unsigned questions);
/* cuda: what cuDeviceGetAttribute answers for `which`, until the next reset. */
void fake_attribute(int which, int value);
/* Every copy takes bytes / rate seconds (0: no time). */
void fake_copy_rate(double bytes_per_second);

#ifdef __cplusplus
}
#endif
