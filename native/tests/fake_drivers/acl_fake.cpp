// The model, and AscendCL's functions about the process, its devices and contexts.
#include "acl_fake.hpp"

#include <algorithm>

namespace fake {
namespace acl {
namespace {

thread_local Number current = 0;

}  // namespace

Model& model() {
    static Model* const instance = new Model;  // never destroyed: calls may come while the process ends
    return *instance;
}

Call::Call(const char* symbol, Needs needs) {
    code = enter(symbol);
    if (code != 0) return;
    lock_ = std::unique_lock(model().mutex);
    const auto found = model().contexts.find(current);
    if (found != model().contexts.end()) {
        context = found->first;
        device = found->second;
    }
    if (needs != Needs::nothing && !model().initialised)
        code = violate(uninitialised, "%s: aclInit was not called", symbol);
    else if (needs == Needs::context && context == 0)
        code = violate(no_context, "%s: this thread has no context", symbol);
}

Number new_name() {
    return model().last_name += 0x10;
}

void set_current(Number context) {
    current = context;
}

}  // namespace acl

void forget() {
    const std::lock_guard lock(acl::model().mutex);
    acl::model().initialised = false;
    acl::model().contexts.clear();
    for (const auto& [name, stream] : acl::model().streams) stream->waiting.clear();  // somebody may be playing it
    acl::model().streams.clear();
    acl::forget_memory();
    acl::forget_host();
}

}  // namespace fake

using namespace fake::acl;

FAKE_EXPORT int aclInit(const char* config) {
    const Call call("aclInit", Call::Needs::nothing);
    if (call.code != 0) return call.code;
    if (config != nullptr) return fake::violate(invalid_parameter, "aclInit: a config file that nobody wrote");
    if (model().initialised) return repeated_initialise;  // no broken rule: others may have been here before
    model().initialised = true;
    return 0;
}

FAKE_EXPORT int aclrtSetDevice(std::int32_t device) {
    const Call call("aclrtSetDevice", Call::Needs::initialisation);
    if (call.code != 0) return call.code;
    if (device < 0 || device >= devices) return invalid_device;
    auto& contexts = model().contexts;
    auto found = std::ranges::find_if(contexts, [&](const auto& entry) { return entry.second == device; });
    if (found == contexts.end()) {
        found = contexts.emplace(new_name(), device).first;
        model().streams[found->first] = std::make_shared<Stream>();
        model().streams[found->first]->context = found->first;
    }
    set_current(found->first);
    return 0;
}

FAKE_EXPORT int aclrtGetCurrentContext(void** context) {
    const Call call("aclrtGetCurrentContext", Call::Needs::initialisation);
    if (call.code != 0) return call.code;
    if (call.context == 0) return no_context;  // no broken rule: this is how one asks
    *context = pointer(call.context);
    return 0;
}

FAKE_EXPORT int aclrtSetCurrentContext(void* context) {
    const Call call("aclrtSetCurrentContext", Call::Needs::initialisation);
    if (call.code != 0) return call.code;
    if (!model().contexts.contains(number(context)))
        return fake::violate(invalid_parameter, "aclrtSetCurrentContext: no such context");
    set_current(number(context));
    return 0;
}

#ifndef FAKE_OLD_CANN

FAKE_EXPORT int aclrtGetVersion(std::int32_t* major, std::int32_t* minor, std::int32_t* patch) {
    const Call call("aclrtGetVersion", Call::Needs::nothing);
    if (call.code != 0) return call.code;
    *major = 1;
    *minor = 15;
    *patch = 2;
    return 0;
}

FAKE_EXPORT const char* aclGetRecentErrMsg() {
    const Call call("aclGetRecentErrMsg", Call::Needs::nothing);
    return call.code != 0 ? nullptr : "words of the fake";
}

#endif
