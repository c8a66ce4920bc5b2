// What a first offload costs without any cleverness, for comparison on the same machine: every thread touches, registers
// and copies its own blocks of 61 GiB. Host memory is used once before anything is timed.
//
//     nvcc -O3 -std=c++17 -arch=native naive_offload.cu -o naive_offload && ./naive_offload
#include <cuda_runtime.h>
#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

namespace {

constexpr std::size_t mib = std::size_t{1} << 20;
constexpr std::size_t total = 61 * 1024 * mib;
constexpr std::size_t block = 128 * mib;
constexpr std::size_t page = 4096;

void check(cudaError_t code) {
    if (code != cudaSuccess) {
        std::fprintf(stderr, "%s\n", cudaGetErrorString(code));
        std::exit(1);
    }
}

double now() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double offload(char* host, const char* device, unsigned count) {
    const double begin = now();
    std::vector<std::thread> threads;
    for (unsigned thread = 0; thread < count; ++thread) {
        threads.emplace_back([=] {
            cudaStream_t stream;
            check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
            for (std::size_t at = block * thread; at < total; at += block * count) {
                const std::size_t bytes = std::min(block, total - at);
                for (std::size_t touched = 0; touched < bytes; touched += page) {
                    host[at + touched] = 1;
                }
                check(cudaHostRegister(host + at, bytes, 0));
                check(cudaMemcpyAsync(host + at, device + at, bytes, cudaMemcpyDeviceToHost, stream));
            }
            check(cudaStreamSynchronize(stream));
            check(cudaStreamDestroy(stream));
        });
    }
    for (std::thread& thread : threads) {
        thread.join();
    }
    return now() - begin;
}

template <typename Action>
double each_block(char* host, Action action) {
    const double begin = now();
    for (std::size_t at = 0; at < total; at += block) {
        check(action(host + at, std::min(block, total - at)));
    }
    return now() - begin;
}

}  // namespace

int main() {
    char* device = nullptr;
    check(cudaMalloc(&device, total));
    check(cudaMemset(device, 7, total));
    for (int round = 0; round < 6; ++round) {
        const unsigned threads = round % 2 == 0 ? 16 : 12;
        void* memory = mmap(nullptr, total + 2 * mib, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        auto* host = reinterpret_cast<char*>((reinterpret_cast<std::size_t>(memory) + 2 * mib - 1) & ~(2 * mib - 1));
        madvise(host, total, MADV_HUGEPAGE);
        check(cudaDeviceSynchronize());
        const double all = offload(host, device, threads);
        const auto unregister = [](char* at, std::size_t) { return cudaHostUnregister(at); };
        const double off = each_block(host, unregister);
        const double on = each_block(host, [](char* at, std::size_t bytes) { return cudaHostRegister(at, bytes, 0); });
        each_block(host, unregister);
        munmap(memory, total + 2 * mib);
        std::printf("%s%2u threads: touch, register and copy 61 GiB %.3f s; register alone %.3f s, unregister %.3f s\n",
                    round == 0 ? "(memory not used before) " : "", threads, all, on, off);
        std::fflush(stdout);
    }
    return 0;
}
