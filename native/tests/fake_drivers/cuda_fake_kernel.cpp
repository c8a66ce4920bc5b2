// Modules and kernels: the fake knows two kernels, `dormouse_digest`, of which it computes what digest.hpp says, and
// `dormouse_pull`, a copy from pinned host memory. A module has one of them.
//
// It does not read the PTX beyond the name of the entry: what the code does is shown by the tests of the kernels.
#include <atomic>
#include <cstring>
#include <string>
#include <string_view>

#include "cuda_fake_device.hpp"
#include "dormouse/digest.hpp"

using namespace fake;

namespace {

constexpr std::string_view digest_name = "dormouse_digest";
constexpr std::string_view pull_name = "dormouse_pull";
constexpr std::size_t kernel_alignment = 16;  // they read two words at a time

struct Digest {
    std::uint64_t address, words, first_word, out;
};

void run(const Digest& digest) {
    const auto* data = reinterpret_cast<const std::uint64_t*>(digest.address);
    std::uint64_t sum = 0;
    for (std::uint64_t i = 0; i < digest.words; ++i) {
        std::uint64_t x = data[i] + (digest.first_word + i + 1) * dormouse::digest_step;
        x = (x ^ (x >> 32)) * dormouse::digest_multiplier;
        sum += x ^ (x >> 32);
    }
    std::atomic_ref(*reinterpret_cast<std::uint64_t*>(digest.out)).fetch_add(sum);
}

Result check_arguments(const Digest& digest) {
    if (digest.words > SIZE_MAX / sizeof(std::uint64_t))
        return violate(invalid_value, "cuLaunchKernel: %#lx words", digest.words);
    const std::size_t bytes = digest.words * sizeof(std::uint64_t);
    if (digest.address % kernel_alignment != 0 || bytes % kernel_alignment != 0 || digest.out % 8 != 0)
        return violate(misaligned_address, "cuLaunchKernel: %#lx + %#zx or the sum at %#lx is not aligned",
                       digest.address, bytes, digest.out);
    if (bytes > 0 && !device().reachable(digest.address, bytes, false))
        return violate(illegal_address, "cuLaunchKernel: no access to %#lx + %#zx", digest.address, bytes);
    if (!device().reachable(digest.out, sizeof(std::uint64_t), true))
        return violate(illegal_address, "cuLaunchKernel: no access to the sum at %#lx", digest.out);
    return success;
}

struct Pull {
    std::uint64_t to, from, vectors;
};

Result check_arguments(const Pull& pull) {
    if (pull.vectors > SIZE_MAX / kernel_alignment)
        return violate(invalid_value, "cuLaunchKernel: %#lx vectors", pull.vectors);
    const std::size_t bytes = pull.vectors * kernel_alignment;
    if (pull.to % kernel_alignment != 0 || pull.from % kernel_alignment != 0)
        return violate(misaligned_address, "cuLaunchKernel: a pull from %#lx to %#lx is not aligned", pull.from,
                       pull.to);
    if (bytes > 0 && !device().reachable(pull.to, bytes, true))
        return violate(illegal_address, "cuLaunchKernel: no access to %#lx + %#zx", pull.to, bytes);
    if (bytes > 0 && !device().pinned(pull.from, bytes, false))
        return violate(illegal_address, "cuLaunchKernel: %#lx + %#zx is not inside one pinned range", pull.from, bytes);
    return success;
}

// The kernel that a text names; empty where it is none that is known here.
std::string_view entry_of(std::string_view text) {
    for (const std::string_view name : {digest_name, pull_name})
        if (text.find(".visible .entry " + std::string(name) + "(") != std::string_view::npos) return name;
    return {};
}

}  // namespace

FAKE_EXPORT Result cuModuleLoadData(Module** module, const void* image) {
    FAKE_BEGIN(context);
    if (module == nullptr || image == nullptr) return violate(invalid_value, "cuModuleLoadData: no image, or no place");
    const std::string_view text(static_cast<const char*>(image));
    for (const char* part : {".version", ".target", ".address_size 64"})
        if (text.find(part) == std::string_view::npos)
            return violate(invalid_image, "cuModuleLoadData: the PTX has no %s", part);
    const std::string_view entry = entry_of(text);
    if (entry.empty()) return violate(invalid_image, "cuModuleLoadData: the PTX has no kernel that is known here");
    auto fresh = std::make_unique<Module>(Module{std::string(entry)});
    *module = fresh.get();
    const std::lock_guard lock(device().mutex);
    device().modules.emplace(fresh.get(), std::move(fresh));
    live("modules", 1);
    return success;
}

FAKE_EXPORT Result cuModuleUnload(Module* module) {
    FAKE_BEGIN(context);
    const std::lock_guard lock(device().mutex);
    auto& all = device();
    const auto found = all.modules.find(module);
    if (found == all.modules.end()) return violate(invalid_handle, "cuModuleUnload: no such module");
    for (auto function = all.functions.begin(); function != all.functions.end();) {
        if (function->second->module != module) {
            ++function;
            continue;
        }
        all.graveyard.push_back(std::move(function->second));
        function = all.functions.erase(function);
    }
    all.graveyard.push_back(std::move(found->second));
    all.modules.erase(found);
    live("modules", -1);
    return success;
}

FAKE_EXPORT Result cuModuleGetFunction(Function** function, Module* module, const char* name) {
    FAKE_BEGIN(context);
    const std::lock_guard lock(device().mutex);
    if (!device().modules.contains(module)) return violate(invalid_handle, "cuModuleGetFunction: no such module");
    if (function == nullptr || name == nullptr)
        return violate(invalid_value, "cuModuleGetFunction: no name, or no place");
    if (name != module->entry) return violate(not_found, "cuModuleGetFunction: no function %s", name);
    auto fresh = std::make_unique<Function>(Function{module});
    *function = fresh.get();
    device().functions.emplace(fresh.get(), std::move(fresh));
    return success;
}

FAKE_EXPORT Result cuLaunchKernel(Function* function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                                  unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared_bytes,
                                  Stream* stream, void** parameters, void** extra) {
    FAKE_BEGIN(context);
    const std::lock_guard lock(device().mutex);
    if (!device().functions.contains(function)) return violate(invalid_handle, "cuLaunchKernel: no such function");
    const auto target = device().find(stream);
    if (!target) return violate(invalid_handle, "cuLaunchKernel: %p is no stream", static_cast<const void*>(stream));
    const std::uint64_t threads = std::uint64_t{block_x} * block_y * block_z;
    if (grid_x == 0 || grid_y == 0 || grid_z == 0 || grid_x > 0x7fffffff || grid_y > 65535 || grid_z > 65535 ||
        threads == 0 || threads > 1024 || shared_bytes > (48U << 10))
        return violate(invalid_value, "cuLaunchKernel: grid %u %u %u, block %u %u %u, %u bytes shared", grid_x, grid_y,
                       grid_z, block_x, block_y, block_z, shared_bytes);
    if (parameters == nullptr || extra != nullptr)
        return violate(invalid_value, "cuLaunchKernel: the arguments must come as parameters");
    const auto argument = [&](std::size_t i) {
        std::uint64_t value = 0;
        std::memcpy(&value, parameters[i], sizeof value);
        return value;
    };
    if (device().functions.at(function)->module->entry == pull_name) {
        const Pull pull{argument(0), argument(1), argument(2)};
        if (const Result refused = check_arguments(pull)) return refused;
        const std::size_t bytes = pull.vectors * kernel_alignment;
        target->queue.push_back({{Span{pull.to, bytes}, Span{pull.from, bytes}, Span{}},
                                 bytes,
                                 [pull, bytes] {
                                     std::memcpy(reinterpret_cast<void*>(pull.to),
                                                 reinterpret_cast<const void*>(pull.from), bytes);
                                 },
                                 false});
        return success;
    }
    const Digest digest{argument(0), argument(1), argument(2), argument(3)};
    if (const Result refused = check_arguments(digest)) return refused;
    target->queue.push_back(
        {{Span{digest.address, digest.words * 8}, Span{digest.out, 8}, Span{}}, 0, [digest] { run(digest); }, false});
    return success;
}
