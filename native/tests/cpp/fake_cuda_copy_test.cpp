// The fake libcuda.so.1 enforces the vendor's rules for streams, copies, pinned memory and kernels: each is broken here
// once, and the fake must refuse it and count it.
#include <sys/mman.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <thread>
#include <vector>

#include "fake_cuda.hpp"

namespace fake_cuda {
namespace {

TEST_F(FakeCuda, ACopyHappensWhenSomebodyWaitsForItAndNotBefore) {
    const u64 address = usable(granule);
    unsigned char* const from = host(granule);
    unsigned char* const to = host(granule);
    const Opaque queue = stream();
    std::memset(from, 1, granule);
    FINE(cu.cuMemcpyHtoDAsync_v2(address, from, granule, queue));
    FINE(cu.cuMemcpyDtoHAsync_v2(to, address, granule, queue));
    FINE(cu.cuMemsetD8Async(address, 9, granule, queue));
    EXPECT_EQ(bytes_at(address)[5], FAKE_POISON);
    EXPECT_EQ(to[5], FAKE_POISON);
    FINE(cu.cuStreamSynchronize(stream()));  // another stream
    EXPECT_EQ(to[5], FAKE_POISON);
    FINE(cu.cuStreamSynchronize(queue));
    EXPECT_EQ(to[5], 1);  // in order: copied before it was set
    EXPECT_EQ(bytes_at(address)[granule - 1], 9);
}

TEST_F(FakeCuda, AWaitEndsAlthoughAnotherThreadGoesOnAddingWork) {
    const u64 address = usable(granule);
    const Opaque queue = stream();
    unsigned char* const buffer = host(4096);
    cu.fake_copy_rate(4096 / 0.001);  // slower than work is added
    std::atomic<bool> stop{false};
    std::thread adder([&] {
        FINE(cu.cuCtxSetCurrent(context));
        for (int i = 0; i < 2000 && !stop; ++i) {
            FINE(cu.cuMemcpyHtoDAsync_v2(address, buffer, 4096, queue));
            std::this_thread::sleep_for(std::chrono::microseconds(100));
        }
    });
    while (cu.fake_calls("cuMemcpyHtoDAsync_v2") < 10) std::this_thread::yield();
    FINE(cu.cuCtxSynchronize());
    EXPECT_LT(cu.fake_calls("cuMemcpyHtoDAsync_v2"), 2000U);
    stop = true;
    adder.join();
}

TEST_F(FakeCuda, ADeviceWideWaitCoversEveryStreamAndDestroyedOnes) {
    const u64 address = usable(granule);
    const Opaque kept = stream(), destroyed = stream();
    FINE(cu.cuMemsetD8Async(address, 1, 1, kept));
    FINE(cu.cuMemsetD8Async(address + 1, 2, 1, destroyed));
    FINE(cu.cuMemsetD8Async(address + 2, 3, 1, nullptr));
    FINE(cu.cuStreamDestroy_v2(destroyed));
    REFUSED(700, cu.cuMemUnmap(address, granule));
    FINE(cu.cuCtxSynchronize());
    EXPECT_EQ(std::memcmp(bytes_at(address), "\1\2\3", 3), 0);
    FINE(cu.cuMemUnmap(address, granule));
}

TEST_F(FakeCuda, MemoryWithQueuedWorkMayNotGoAway) {
    const u64 address = usable(granule);
    u64 block = 0;
    FINE(cu.cuMemAlloc_v2(&block, 4096));
    unsigned char* const allocated = host(4096);
    alignas(4096) static std::array<unsigned char, 4096> registered;
    FINE(cu.cuMemHostRegister_v2(registered.data(), registered.size(), 0));
    const Opaque queue = stream();
    FINE(cu.cuMemcpyHtoDAsync_v2(address, registered.data(), 4096, queue));
    FINE(cu.cuMemcpyDtoHAsync_v2(allocated, block, 4096, queue));
    REFUSED(700, cu.cuMemUnmap(address, granule));
    REFUSED(700, allow(address, granule, 0));
    REFUSED(700, cu.cuMemFree_v2(block));
    REFUSED(700, cu.cuMemFreeHost(allocated));
    REFUSED(700, cu.cuMemHostUnregister(registered.data()));
    FINE(cu.cuStreamSynchronize(queue));
    FINE(cu.cuMemUnmap(address, granule));
    FINE(cu.cuMemFree_v2(block));
    FINE(cu.cuMemFreeHost(allocated));
    FINE(cu.cuMemHostUnregister(registered.data()));
    REFUSED(1, cu.cuMemFree_v2(block));
    EXPECT_EQ(cu.fake_live("host"), 0U);
    EXPECT_EQ(cu.fake_live("pinned"), 0U);
}

TEST_F(FakeCuda, ACopyMaySpanMappingsButNotAHole) {
    const u64 address = reserve(4 * granule);
    for (u64 i : {0U, 1U, 3U}) FINE(cu.cuMemMap(address + i * granule, granule, 0, create(granule), 0));
    FINE(allow(address, 2 * granule));
    FINE(allow(address + 3 * granule, granule));
    unsigned char* const buffer = host(4 * granule);
    FINE(cu.cuMemcpyDtoHAsync_v2(buffer, address + 1, 2 * granule - 1, nullptr));
    REFUSED(1, cu.cuMemcpyDtoHAsync_v2(buffer, address, 2 * granule + 1, nullptr));
    REFUSED(1, cu.cuMemcpyDtoHAsync_v2(buffer, address, 4 * granule, nullptr));
}

TEST_F(FakeCuda, HostMemoryOfACopyLiesInsideOnePinnedRange) {
    const u64 address = usable(granule);
    void* const memory = mmap(nullptr, 4 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    auto* const bytes = static_cast<unsigned char*>(memory);
    REFUSED(1, cu.cuMemcpyHtoDAsync_v2(address, bytes, 1, nullptr));
    FINE(cu.cuMemHostRegister_v2(bytes, 4096, 0));
    FINE(cu.cuMemHostRegister_v2(bytes + 4096, 4096, 8));  // read only
    EXPECT_EQ(cu.fake_live("pinned"), 2U);
    FINE(cu.cuMemcpyHtoDAsync_v2(address, bytes, 4096, nullptr));
    FINE(cu.cuMemcpyHtoDAsync_v2(address, bytes + 4096, 4096, nullptr));
    REFUSED(1, cu.cuMemcpyHtoDAsync_v2(address, bytes, 4097, nullptr));  // across two ranges
    REFUSED(1, cu.cuMemcpyDtoHAsync_v2(bytes + 4096, address, 4096, nullptr));
    REFUSED(1, cu.cuMemcpyHtoDAsync_v2(address, bytes + 2 * 4096, 1, nullptr));
    REFUSED(712, cu.cuMemHostRegister_v2(bytes, 4096, 0));
    REFUSED(712, cu.cuMemHostRegister_v2(bytes + 2048, 4 * 4096 - 2048, 0));
    REFUSED(713, cu.cuMemHostUnregister(bytes + 2048));
    REFUSED(1, cu.cuMemHostRegister_v2(bytes + 2 * 4096, 0, 0));
    REFUSED(1, cu.cuMemHostRegister_v2(bytes + 2 * 4096, 4096, 16));
    REFUSED(1, cu.cuMemHostRegister_v2(nullptr, 4096, 0));
    FINE(cu.cuCtxSynchronize());
    FINE(cu.cuMemHostUnregister(bytes));
    REFUSED(713, cu.cuMemHostUnregister(bytes));
    munmap(bytes + 3 * 4096, 4096);
    REFUSED(1, cu.cuMemHostRegister_v2(bytes + 2 * 4096, 2 * 4096, 0));  // not all of it is memory
    FINE(cu.cuMemHostRegister_v2(bytes + 2 * 4096, 4096, 0));
    munmap(memory, 3 * 4096);
    REFUSED(1, cu.cuMemHostUnregister(bytes + 2 * 4096));  // unmapped before it was unpinned
}

TEST_F(FakeCuda, PinnedBlocksAreFreedOnceAndByTheirOwnCall) {
    void* place = nullptr;
    REFUSED(1, cu.cuMemHostAlloc(&place, 0, 0));
    REFUSED(1, cu.cuMemHostAlloc(&place, 8, 8));
    unsigned char* const block = host(8);
    EXPECT_EQ(cu.fake_live("host"), 1U);
    EXPECT_EQ(block[7], FAKE_POISON);
    REFUSED(713, cu.cuMemHostUnregister(block));
    REFUSED(1, cu.cuMemFreeHost(block + 1));
    FINE(cu.cuMemFreeHost(block));
    REFUSED(1, cu.cuMemFreeHost(block));
}

TEST_F(FakeCuda, DestroyedAndForeignStreamsAreRejected) {
    const u64 address = usable(granule);
    unsigned char* const buffer = host(8);
    int foreign = 0, least = 1, greatest = 1;
    Opaque low = nullptr, none = nullptr;
    FINE(cu.cuCtxGetStreamPriorityRange(&least, &greatest));
    EXPECT_GT(least, greatest);
    FINE(cu.cuStreamCreateWithPriority(&low, 1, least));
    REFUSED(1, cu.cuStreamCreate(&none, 2));
    const Opaque gone = stream();
    EXPECT_EQ(cu.fake_live("streams"), 2U);
    FINE(cu.cuStreamDestroy_v2(gone));
    for (const Opaque wrong : {gone, static_cast<Opaque>(&foreign)}) {
        REFUSED(400, cu.cuStreamSynchronize(wrong));
        REFUSED(400, cu.cuStreamQuery(wrong));
        REFUSED(400, cu.cuStreamDestroy_v2(wrong));
        REFUSED(400, cu.cuMemcpyHtoDAsync_v2(address, buffer, 8, wrong));
        REFUSED(400, cu.cuMemcpyDtoHAsync_v2(buffer, address, 8, wrong));
        REFUSED(400, cu.cuMemsetD8Async(address, 0, 8, wrong));
        REFUSED(400, launch(kernel(), address, 2, 0, address, wrong));
    }
    REFUSED(400, cu.cuStreamDestroy_v2(nullptr));
    FINE(cu.cuStreamDestroy_v2(low));
}

TEST_F(FakeCuda, TheKernelAddsTheDigestWhenItIsWaitedFor) {
    const u64 address = usable(granule);
    u64 out = 0;
    FINE(cu.cuMemAlloc_v2(&out, 8));
    const Opaque queue = stream(), function = kernel();
    // Known answers, worked out by hand from digest.hpp's words: x of one word that is 0, and of one that is 1.
    const auto mixed = [](u64 word, u64 position) {
        u64 x = word + (position + 1) * 0x9E3779B97F4A7C15ULL;
        x = (x ^ (x >> 32)) * 0xD6E8FEB86659FD93ULL;
        return x ^ (x >> 32);
    };
    const std::array<u64, 4> words{0, 1, 0xffffffffffffffffULL, 42};
    std::memcpy(bytes_at(address), words.data(), sizeof words);
    FINE(cu.cuMemsetD8Async(out, 0, 8, queue));
    FINE(launch(function, address, 2, 0, out, queue));
    FINE(launch(function, address + 16, 2, 2, out, queue));
    EXPECT_EQ(bytes_at(out)[0], FAKE_POISON);
    FINE(cu.cuStreamSynchronize(queue));
    u64 sum = 0;
    std::memcpy(&sum, bytes_at(out), 8);
    EXPECT_EQ(sum, mixed(0, 0) + mixed(1, 1) + mixed(words[2], 2) + mixed(42, 3));
}

TEST_F(FakeCuda, ABadModuleOrLaunchIsRejected) {
    const u64 address = usable(granule), bare = reserve(granule);
    FINE(cu.cuMemMap(bare, granule, 0, create(granule), 0));
    Opaque module = nullptr, function = nullptr;
    REFUSED(200, cu.cuModuleLoadData(&module, "\177ELF"));
    REFUSED(200, cu.cuModuleLoadData(&module, ".version 7.0\n.target sm_70\n.address_size 64\n.visible .entry other("));
    REFUSED(1, cu.cuModuleLoadData(&module, nullptr));
    FINE(cu.cuModuleLoadData(&module, ptx));
    REFUSED(500, cu.cuModuleGetFunction(&function, module, "other"));
    REFUSED(400, cu.cuModuleGetFunction(&function, &module, "dormouse_digest"));
    FINE(cu.cuModuleGetFunction(&function, module, "dormouse_digest"));
    REFUSED(1, launch(function, address, 2, 0, address, nullptr, 0));
    REFUSED(1, launch(function, address, 2, 0, address, nullptr, 1, 0));
    REFUSED(1, launch(function, address, 2, 0, address, nullptr, 1, 2048));
    REFUSED(1, cu.cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, nullptr, nullptr, nullptr));
    REFUSED(400, launch(&module, address, 2, 0, address, nullptr));
    REFUSED(716, launch(function, address + 8, 2, 0, address, nullptr));
    REFUSED(716, launch(function, address, 1, 0, address, nullptr));
    REFUSED(716, launch(function, address, 2, 0, address + 4, nullptr));
    REFUSED(700, launch(function, bare, 2, 0, address, nullptr));  // no access set
    REFUSED(700, launch(function, address, 2, 0, bare, nullptr));
    REFUSED(700, launch(function, address, granule / 8 + 2, 0, address, nullptr));
    REFUSED(1, launch(function, address, SIZE_MAX / 4, 0, address, nullptr));
    FINE(launch(function, address, 2, 0, address + 64, nullptr));
    REFUSED(700, cu.cuMemUnmap(address, granule));
    FINE(cu.cuCtxSynchronize());
    FINE(cu.cuModuleUnload(module));
    REFUSED(400, cu.cuModuleUnload(module));
    REFUSED(400, launch(function, address, 2, 0, address, nullptr));
}

TEST_F(FakeCuda, ThePullKernelCopiesFromPinnedMemoryWhenItIsWaitedFor) {
    const u64 address = usable(granule);
    unsigned char* const from = host(4096);
    std::memset(from, 3, 4096);
    const Opaque queue = stream(), function = pull_kernel();
    FINE(pull(function, address + 64, at(from), 3, queue));
    EXPECT_EQ(bytes_at(address)[64], FAKE_POISON);
    REFUSED(700, cu.cuMemUnmap(address, granule));
    REFUSED(700, cu.cuMemFreeHost(from));
    FINE(cu.cuStreamSynchronize(queue));
    EXPECT_EQ(bytes_at(address)[63], FAKE_POISON);
    EXPECT_EQ(bytes_at(address)[64], 3);
    EXPECT_EQ(bytes_at(address)[64 + 47], 3);
    EXPECT_EQ(bytes_at(address)[64 + 48], FAKE_POISON);
}

TEST_F(FakeCuda, ABadPullIsRejected) {
    const u64 address = usable(granule);
    unsigned char* const from = host(4096);
    static std::array<unsigned char, 4096> loose;
    Opaque module = nullptr, function = nullptr;
    FINE(cu.cuModuleLoadData(&module, pull_ptx));
    REFUSED(500, cu.cuModuleGetFunction(&function, module, "dormouse_digest"));
    FINE(cu.cuModuleGetFunction(&function, module, "dormouse_pull"));
    REFUSED(716, pull(function, address + 8, at(from), 1, nullptr));
    REFUSED(716, pull(function, address, at(from) + 8, 1, nullptr));
    REFUSED(700, pull(function, address, at(loose.data()) / 16 * 16, 1, nullptr));
    REFUSED(700, pull(function, address, at(from), 257, nullptr));
    REFUSED(700, pull(function, address + granule - 16, at(from), 2, nullptr));
    REFUSED(1, pull(function, address, at(from), SIZE_MAX / 8, nullptr));
    FINE(pull(function, address, at(from), 0, nullptr));
}

TEST_F(FakeCuda, AQuestionFindsAStreamDoneUnlessTheEngineStandsStill) {
    const u64 address = usable(granule);
    unsigned char* const from = host(4096);
    std::memset(from, 4, 4096);
    const Opaque engine = stream(), processors = stream();
    FINE(cu.cuStreamQuery(engine));
    FINE(cu.cuMemcpyHtoDAsync_v2(address, from, 16, engine));
    FINE(cu.cuStreamQuery(engine));
    EXPECT_EQ(bytes_at(address)[0], 4);

    cu.fake_stall(2);
    FINE(cu.cuMemcpyHtoDAsync_v2(address + 16, from, 16, engine));
    FINE(pull(pull_kernel(), address + 32, at(from), 1, processors));
    FINE(cu.cuStreamQuery(processors));
    EXPECT_EQ(bytes_at(address)[32], 4) << "kernels go on";
    EXPECT_EQ(cu.cuStreamQuery(engine), 600);
    EXPECT_EQ(cu.cuStreamQuery(engine), 600);
    EXPECT_EQ(bytes_at(address)[16], FAKE_POISON);
    FINE(cu.cuStreamQuery(engine));
    EXPECT_EQ(bytes_at(address)[16], 4);
}

TEST_F(FakeCuda, WhoWaitsForAnEngineThatStandsStillSitsItOut) {
    const u64 address = usable(granule);
    unsigned char* const from = host(4096);
    const Opaque engine = stream(), other = stream();
    cu.fake_stall(1000);
    FINE(cu.cuMemcpyHtoDAsync_v2(address, from, 16, engine));
    FINE(cu.cuStreamSynchronize(other));
    EXPECT_EQ(cu.cuStreamQuery(engine), 600);
    FINE(cu.cuStreamSynchronize(engine));
    FINE(cu.cuMemcpyHtoDAsync_v2(address, from, 16, engine));
    FINE(cu.cuStreamQuery(engine));
}

TEST_F(FakeCuda, CopiesTakeAsLongAsTheirRateSays) {
    const u64 address = usable(granule);
    unsigned char* const buffer = host(granule);
    cu.fake_copy_rate(double{granule} / 0.05);
    FINE(cu.cuMemcpyDtoHAsync_v2(buffer, address, granule, nullptr));
    const auto start = std::chrono::steady_clock::now();
    FINE(cu.cuCtxSynchronize());
    EXPECT_GE(std::chrono::steady_clock::now() - start, std::chrono::milliseconds(50));
}

TEST_F(FakeCuda, ManyThreadsAtOnceLoseNothing) {
    std::atomic<int> failures{0};
    std::vector<std::thread> threads;
    for (unsigned char id = 1; id <= 4; ++id)
        threads.emplace_back([this, id, &failures] {
            Opaque queue = nullptr;
            void* place = nullptr;
            failures += cu.cuCtxSetCurrent(context) + cu.cuStreamCreate(&queue, 1);
            failures += cu.cuMemHostAlloc(&place, granule, 0);
            auto* const buffer = static_cast<unsigned char*>(place);
            const Access access{{1, 0}, 3};
            for (int round = 0; round < 20; ++round) {
                u64 address = 0, handle = 0;
                failures += cu.cuMemAddressReserve(&address, granule, 0, 0, 0);
                failures += cu.cuMemCreate(&handle, granule, &device_prop, 0);
                failures += cu.cuMemMap(address, granule, 0, handle, 0) + cu.cuMemRelease(handle);
                failures += cu.cuMemSetAccess(address, granule, &access, 1);
                std::memset(buffer, id, granule);
                failures += cu.cuMemcpyHtoDAsync_v2(address, buffer, granule, queue);
                failures += cu.cuStreamSynchronize(queue);
                failures += bytes_at(address)[granule - 1] == id ? 0 : 1;
                failures += cu.cuMemsetD8Async(address, static_cast<unsigned char>(id + 100), granule, queue);
                failures += cu.cuMemcpyDtoHAsync_v2(buffer, address, granule, queue);
                failures += round % 2 == 0 ? cu.cuCtxSynchronize() : cu.cuStreamSynchronize(queue);
                failures += buffer[granule - 1] == id + 100 ? 0 : 1;
                failures += cu.cuMemUnmap(address, granule) + cu.cuMemAddressFree(address, granule);
            }
            failures += cu.cuStreamDestroy_v2(queue) + cu.cuMemFreeHost(place);
        });
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(failures, 0) << cu.fake_last_violation();
    EXPECT_EQ(cu.fake_violations(), 0U);
    for (const char* what : {"handles", "mappings", "reservations", "pinned", "streams", "bytes", "host"})
        EXPECT_EQ(cu.fake_live(what), 0U) << what;
}

}  // namespace
}  // namespace fake_cuda
