// A copy as a kernel, in PTX: the device's processors read pinned host memory and write their own.
//
// The grid walks the range together, 16 bytes to a vector; thread t of T takes vectors t, t+T, t+2T …, four of them
// under way at a time. What bounds it is the link: on an H200, 16 to 132 blocks of 512 threads moved alike 44 to 47
// GiB/s (the copy engine at rest: 51.7), and mapping memory meanwhile took the longer the more blocks there were: so
// it takes the fewest. Nothing is read twice, so nothing may be pushed out of the caches for it (.cs).
#pragma once

namespace dormouse::cuda {

inline constexpr unsigned pull_threads = 512;  // per block
inline constexpr unsigned pull_blocks = 16;    // at most
inline constexpr unsigned pull_unrolled = 4;   // vectors that a thread has under way
inline constexpr const char* pull_entry = "dormouse_pull";

// clang-format off
#define DORMOUSE_LOAD(first, second, where)                                     \
    "  ld.global.cs.v2.u64 {" first ", " second "}, [" where "];\n"

#define DORMOUSE_STORE(where, first, second)                                    \
    "  st.global.cs.v2.u64 [" where "], {" first ", " second "};\n"

inline constexpr const char* pull_kernel =
    ".version 7.0\n"
    ".target sm_70\n"
    ".address_size 64\n"
    ".visible .entry dormouse_pull(\n"
    "  .param .u64 to, .param .u64 from, .param .u64 count)\n"
    ".maxntid 512, 1, 1\n"
    "{\n"
    "  .reg .pred done, first, second, third;\n"
    "  .reg .b32 block, blocks, thread, threads;\n"
    "  .reg .b64 in, in1, in2, in3, out, out1, out2, out3;\n"
    "  .reg .b64 vector, vectors, last, span, stride, step, leap, x;\n"
    "  .reg .b64 a0, a1, b0, b1, c0, c1, d0, d1;\n"
    // Which vectors are mine.
    "  mov.u32 block, %ctaid.x;\n"
    "  mov.u32 blocks, %nctaid.x;\n"
    "  mov.u32 thread, %tid.x;\n"
    "  mov.u32 threads, %ntid.x;\n"
    "  mul.wide.u32 vector, block, threads;\n"
    "  cvt.u64.u32 x, thread;\n"
    "  add.u64 vector, vector, x;\n"
    "  mul.wide.u32 stride, blocks, threads;\n"
    "  ld.param.u64 vectors, [count];\n"
    // Where the first is, and how far it is to the next, in bytes.
    "  shl.b64 x, vector, 4;\n"
    "  ld.param.u64 in, [from];\n"
    "  cvta.to.global.u64 in, in;\n"
    "  add.u64 in, in, x;\n"
    "  ld.param.u64 out, [to];\n"
    "  cvta.to.global.u64 out, out;\n"
    "  add.u64 out, out, x;\n"
    "  shl.b64 step, stride, 4;\n"
    // As long as four of my vectors are left, four at a time.
    "  mul.lo.u64 span, stride, 3;\n"
    "  add.u64 last, vector, span;\n"
    "  shl.b64 leap, stride, 2;\n"
    "four:\n"
    "  setp.ge.u64 done, last, vectors;\n"
    "  @done bra rest;\n"
    "  add.u64 in1, in, step;\n"
    "  add.u64 in2, in1, step;\n"
    "  add.u64 in3, in2, step;\n"
    DORMOUSE_LOAD("a0", "a1", "in")
    DORMOUSE_LOAD("b0", "b1", "in1")
    DORMOUSE_LOAD("c0", "c1", "in2")
    DORMOUSE_LOAD("d0", "d1", "in3")
    "  add.u64 in, in3, step;\n"
    "  add.u64 out1, out, step;\n"
    "  add.u64 out2, out1, step;\n"
    "  add.u64 out3, out2, step;\n"
    DORMOUSE_STORE("out", "a0", "a1")
    DORMOUSE_STORE("out1", "b0", "b1")
    DORMOUSE_STORE("out2", "c0", "c1")
    DORMOUSE_STORE("out3", "d0", "d1")
    "  add.u64 out, out3, step;\n"
    "  add.u64 last, last, leap;\n"
    "  bra four;\n"
    // Up to three more, again loaded together.
    "rest:\n"
    "  sub.u64 vector, last, span;\n"
    "  setp.lt.u64 first, vector, vectors;\n"
    "  add.u64 vector, vector, stride;\n"
    "  setp.lt.u64 second, vector, vectors;\n"
    "  add.u64 vector, vector, stride;\n"
    "  setp.lt.u64 third, vector, vectors;\n"
    "  add.u64 in1, in, step;\n"
    "  add.u64 in2, in1, step;\n"
    "  @first" DORMOUSE_LOAD("a0", "a1", "in")
    "  @second" DORMOUSE_LOAD("b0", "b1", "in1")
    "  @third" DORMOUSE_LOAD("c0", "c1", "in2")
    "  add.u64 out1, out, step;\n"
    "  add.u64 out2, out1, step;\n"
    "  @first" DORMOUSE_STORE("out", "a0", "a1")
    "  @second" DORMOUSE_STORE("out1", "b0", "b1")
    "  @third" DORMOUSE_STORE("out2", "c0", "c1")
    "  ret;\n"
    "}\n";
// clang-format on

#undef DORMOUSE_LOAD
#undef DORMOUSE_STORE

}  // namespace dormouse::cuda
