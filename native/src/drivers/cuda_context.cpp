#include "cuda_context.hpp"

namespace dormouse::cuda {

PrimaryContext::PrimaryContext(const Api& api, Device device) : api_(api), device_(device) {
    api_.check_room(0, api_.primary_retain, &context_, device_);
}

// At the end of a process the library may be gone already; it then answers with a code and nothing is left to do.
PrimaryContext::~PrimaryContext() {
    api_.primary_release(device_);
}

PrimaryContext::Scope::Scope(const PrimaryContext& context) : api_(context.api_) {
    Context current = nullptr;
    api_.check(api_.context_get, &current);
    if (current == context.context_) return;
    api_.check(api_.context_set, context.context_);
    before_ = current;
}

PrimaryContext::Scope::~Scope() {
    if (before_ != nullptr) api_.context_set(before_);
}

}  // namespace dormouse::cuda
