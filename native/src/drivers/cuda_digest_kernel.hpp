// The digest of digest.hpp as a kernel, in PTX: text that the CUDA driver compiles for whatever device it finds.
//
// The grid walks the range together. A vector is 16 bytes, two words; thread t of T takes vectors t, t+T, t+2T …, so
// neighbours read neighbouring memory. Four loads are under way per thread, which keeps enough bytes in flight to
// saturate HBM with 1024 threads per multiprocessor. The term that makes a position matter is carried along by adding
// constants; a shift by 32 bits is a register's name. Sums meet in the warp, then in the block, then in memory, one
// addition per block. Data that is read once must not push anything out of the caches (.cs).
#pragma once

namespace dormouse::cuda {

inline constexpr unsigned digest_threads = 256;  // per block; the kernel has room for its eight warps
inline constexpr unsigned digest_unrolled = 4;   // vectors that a thread has under way
inline constexpr const char* digest_entry = "dormouse_digest";

// clang-format off
// x = word + position, mixed, added to the sum.
#define DORMOUSE_MIX(word, position)             \
    "  add.u64 x, " word ", " position ";\n"     \
    "  mov.b64 {low, high}, x;\n"                \
    "  xor.b32 low, low, high;\n"                \
    "  mov.b64 x, {low, high};\n"                \
    "  mul.lo.u64 x, x, 0xD6E8FEB86659FD93;\n"   \
    "  mov.b64 {low, high}, x;\n"                \
    "  xor.b32 low, low, high;\n"                \
    "  mov.b64 x, {low, high};\n"                \
    "  add.u64 sum, sum, x;\n"

// Both words of a vector; then position is that of this thread's next vector.
#define DORMOUSE_VECTOR(first, second)                  \
    "  add.u64 odd, position, 0x9E3779B97F4A7C15;\n"    \
    DORMOUSE_MIX(first, "position")                     \
    DORMOUSE_MIX(second, "odd")                         \
    "  add.u64 position, position, advance;\n"

#define DORMOUSE_LOAD(first, second, where)                                     \
    "  ld.global.cs.nc.v2.u64 {" first ", " second "}, [" where "];\n"

// Adds the sum of the lane `distance` above.
#define DORMOUSE_FOLD(distance)                                     \
    "  mov.b64 {low, high}, sum;\n"                                 \
    "  shfl.sync.down.b32 low, low, " distance ", 31, 0xffffffff;\n"   \
    "  shfl.sync.down.b32 high, high, " distance ", 31, 0xffffffff;\n" \
    "  mov.b64 x, {low, high};\n"                                   \
    "  add.u64 sum, sum, x;\n"

#define DORMOUSE_PARTIAL(offset)                                \
    "  ld.shared.v2.u64 {a0, a1}, [partial+" offset "];\n"      \
    "  add.u64 a0, a0, a1;\n"                                   \
    "  add.u64 sum, sum, a0;\n"

inline constexpr const char* digest_kernel =
    ".version 7.0\n"
    ".target sm_70\n"
    ".address_size 64\n"
    ".visible .entry dormouse_digest(\n"
    "  .param .u64 address, .param .u64 words, .param .u64 first_word, .param .u64 out)\n"
    ".maxntid 256, 1, 1\n"
    ".minnctapersm 4\n"
    "{\n"
    "  .reg .pred done, first, second, third, other;\n"
    "  .reg .b32 low, high, block, blocks, thread, threads, lane, slot;\n"
    "  .reg .b64 at, at1, at2, at3, target, vector, vectors, last, span, stride, step, leap;\n"
    "  .reg .b64 position, odd, advance, sum, x, a0, a1, b0, b1, c0, c1, d0, d1;\n"
    "  .shared .align 16 .b64 partial[8];\n"
    // Which vectors are mine.
    "  mov.u32 block, %ctaid.x;\n"
    "  mov.u32 blocks, %nctaid.x;\n"
    "  mov.u32 thread, %tid.x;\n"
    "  mov.u32 threads, %ntid.x;\n"
    "  mul.wide.u32 vector, block, threads;\n"
    "  cvt.u64.u32 x, thread;\n"
    "  add.u64 vector, vector, x;\n"
    "  mul.wide.u32 stride, blocks, threads;\n"
    "  ld.param.u64 vectors, [words];\n"
    "  shr.u64 vectors, vectors, 1;\n"
    // Where the first is, and how far it is to the next, in bytes.
    "  ld.param.u64 at, [address];\n"
    "  cvta.to.global.u64 at, at;\n"
    "  shl.b64 x, vector, 4;\n"
    "  add.u64 at, at, x;\n"
    "  shl.b64 step, stride, 4;\n"
    // Its position's term: (first_word + 2 * vector + 1) * 0x9E37…; a stride later it is 2 * stride * 0x9E37… more.
    "  ld.param.u64 position, [first_word];\n"
    "  shl.b64 x, vector, 1;\n"
    "  add.u64 position, position, x;\n"
    "  add.u64 position, position, 1;\n"
    "  mul.lo.u64 position, position, 0x9E3779B97F4A7C15;\n"
    "  mul.lo.u64 advance, stride, 0x3C6EF372FE94F82A;\n"
    "  mov.u64 sum, 0;\n"
    // As long as four of my vectors are left, four at a time.
    "  mul.lo.u64 span, stride, 3;\n"
    "  add.u64 last, vector, span;\n"
    "  shl.b64 leap, stride, 2;\n"
    "four:\n"
    "  setp.ge.u64 done, last, vectors;\n"
    "  @done bra rest;\n"
    "  add.u64 at1, at, step;\n"
    "  add.u64 at2, at1, step;\n"
    "  add.u64 at3, at2, step;\n"
    DORMOUSE_LOAD("a0", "a1", "at")
    DORMOUSE_LOAD("b0", "b1", "at1")
    DORMOUSE_LOAD("c0", "c1", "at2")
    DORMOUSE_LOAD("d0", "d1", "at3")
    "  add.u64 at, at3, step;\n"
    "  add.u64 last, last, leap;\n"
    DORMOUSE_VECTOR("a0", "a1")
    DORMOUSE_VECTOR("b0", "b1")
    DORMOUSE_VECTOR("c0", "c1")
    DORMOUSE_VECTOR("d0", "d1")
    "  bra four;\n"
    // Up to three more, again loaded together.
    "rest:\n"
    "  sub.u64 vector, last, span;\n"
    "  setp.lt.u64 first, vector, vectors;\n"
    "  add.u64 vector, vector, stride;\n"
    "  setp.lt.u64 second, vector, vectors;\n"
    "  add.u64 vector, vector, stride;\n"
    "  setp.lt.u64 third, vector, vectors;\n"
    "  add.u64 at1, at, step;\n"
    "  add.u64 at2, at1, step;\n"
    "  @first" DORMOUSE_LOAD("a0", "a1", "at")
    "  @second" DORMOUSE_LOAD("b0", "b1", "at1")
    "  @third" DORMOUSE_LOAD("c0", "c1", "at2")
    "  @!first bra reduce;\n"
    DORMOUSE_VECTOR("a0", "a1")
    "  @!second bra reduce;\n"
    DORMOUSE_VECTOR("b0", "b1")
    "  @!third bra reduce;\n"
    DORMOUSE_VECTOR("c0", "c1")
    // One sum per warp, by its first lane; one per block, by its first thread.
    "reduce:\n"
    DORMOUSE_FOLD("16")
    DORMOUSE_FOLD("8")
    DORMOUSE_FOLD("4")
    DORMOUSE_FOLD("2")
    DORMOUSE_FOLD("1")
    "  and.b32 lane, thread, 31;\n"
    "  setp.ne.u32 other, lane, 0;\n"
    "  @other bra together;\n"
    "  shr.u32 slot, thread, 5;\n"
    "  shl.b32 slot, slot, 3;\n"
    "  mov.u32 low, partial;\n"
    "  add.u32 slot, slot, low;\n"
    "  st.shared.u64 [slot], sum;\n"
    "together:\n"
    "  bar.sync 0;\n"
    "  setp.ne.u32 other, thread, 0;\n"
    "  @other bra end;\n"
    "  mov.u64 sum, 0;\n"
    DORMOUSE_PARTIAL("0")
    DORMOUSE_PARTIAL("16")
    DORMOUSE_PARTIAL("32")
    DORMOUSE_PARTIAL("48")
    "  ld.param.u64 target, [out];\n"
    "  cvta.to.global.u64 target, target;\n"
    "  red.global.add.u64 [target], sum;\n"
    "end:\n"
    "  ret;\n"
    "}\n";
// clang-format on

#undef DORMOUSE_MIX
#undef DORMOUSE_VECTOR
#undef DORMOUSE_LOAD
#undef DORMOUSE_FOLD
#undef DORMOUSE_PARTIAL

}  // namespace dormouse::cuda
