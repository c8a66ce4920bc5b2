#include "acl_context.hpp"

namespace dormouse::acl {
namespace {

// Null where the thread has none. AscendCL answers an error then; one that means more shows in the next call.
Context current_context(const Api& api) {
    Context context = nullptr;
    return api.context_get(&context) == success ? context : nullptr;
}

}  // namespace

DefaultContext::DefaultContext(const Api& api, std::int32_t device) : api_(api) {
    const Context before = current_context(api_);
    api_.check_room(0, api_.set_device, device);  // makes its default context current
    const Error code = api_.context_get(&context_);
    if (before != nullptr && before != context_) api_.context_set(before);
    if (code != success) api_.fail(api_.context_get.name(), code);
}

DefaultContext::Scope::Scope(const DefaultContext& context) : api_(context.api_) {
    const Context current = current_context(api_);
    if (current == context.context_) return;
    api_.check(api_.context_set, context.context_);
    before_ = current;
}

DefaultContext::Scope::~Scope() {
    if (before_ != nullptr) api_.context_set(before_);
}

}  // namespace dormouse::acl
