#include "cuda_kernel.hpp"

#include <utility>

#include "dormouse/error.hpp"

namespace dormouse::cuda {

Kernel::Kernel(const Api& api, const PrimaryContext& context, const Text& text, std::function<void()> prepare)
    : api_(api), context_(context), text_(text), prepare_(std::move(prepare)) {}

Kernel::~Kernel() {
    try {
        const PrimaryContext::Scope scope(context_);
        unload();
    } catch (const error&) {
        // The library is shutting down, and everything of ours went with it.
    }
}

bool Kernel::ready() noexcept {
    try {
        return get() != nullptr;
    } catch (const std::exception&) {
        return false;
    }
}

std::string Kernel::problem() {
    const std::lock_guard lock(loading_);
    return problem_;
}

Function Kernel::get() {
    const std::lock_guard lock(loading_);
    if (function_ != nullptr) return function_;
    if (!refused_) {
        try {
            load();
            problem_.clear();
            return function_;
        } catch (const out_of_memory& failure) {
            problem_ = failure.what();
        } catch (const error& failure) {
            problem_ = failure.what();
            refused_ = true;
        }
    }
    throw illegal_state(std::string("the device ") + text_.without + ": " + problem_);
}

void Kernel::load() {
    const PrimaryContext::Scope scope(context_);
    try {
        Function function = nullptr;
        api_.check_room(0, api_.module_load, &module_, text_.ptx);
        api_.check(api_.module_function, &function, module_, text_.entry);
        prepare_();
        function_ = function;
    } catch (...) {
        unload();
        throw;
    }
}

void Kernel::unload() noexcept {
    if (module_ != nullptr) api_.module_unload(module_);
    module_ = nullptr;
    function_ = nullptr;
}

}  // namespace dormouse::cuda
