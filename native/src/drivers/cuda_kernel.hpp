// A kernel of ours on a device: PTX that is loaded when it is first asked for.
//
// A device or a library that can't take it (a driver without its compiler, say) means a reason, for good; only a lack
// of memory is worth another try later.
#pragma once

#include <functional>
#include <mutex>
#include <string>

#include "cuda_context.hpp"

namespace dormouse::cuda {

class Kernel {
   public:
    struct Text {
        const char* ptx;
        const char* entry;
        const char* without;  // what the device does not do where it can't be had: "makes no digests"
    };
    // `api` and `context` must outlive it. `prepare` makes what else the kernel needs, in the context, or throws and
    // leaves nothing.
    Kernel(const Api& api, const PrimaryContext& context, const Text& text, std::function<void()> prepare);
    ~Kernel();
    Kernel(const Kernel&) = delete;
    Kernel& operator=(const Kernel&) = delete;

    bool ready() noexcept;
    // Why it is not ready; empty where it is, or was never asked for.
    std::string problem();
    // The loaded kernel; throws illegal_state where it can't be had. What `prepare` made is there from then on.
    Function get();

   private:
    void load();
    void unload() noexcept;

    const Api& api_;
    const PrimaryContext& context_;
    const Text text_;
    const std::function<void()> prepare_;

    std::mutex loading_;  // guards all below
    bool refused_ = false;
    std::string problem_;
    Module module_ = nullptr;
    Function function_ = nullptr;  // set last
};

}  // namespace dormouse::cuda
