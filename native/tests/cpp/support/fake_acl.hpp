// The fake libascendcl.so as a test sees it: its controls (fake_control.h) and AscendCL's own functions, by name.
#pragma once

#include <dlfcn.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <stdexcept>
#include <string>

#include "fake_control.h"

namespace dormouse {

class FakeAcl {
   public:
    // Resets it: nothing of an earlier test is left.
    explicit FakeAcl(const std::string& library, std::size_t capacity) : path(library) {
        handle_ = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
        if (handle_ == nullptr) throw std::runtime_error(dlerror());
        reset(capacity);
    }
    ~FakeAcl() { dlclose(handle_); }
    FakeAcl(const FakeAcl&) = delete;
    FakeAcl& operator=(const FakeAcl&) = delete;

    // Calls any exported function; `Signature` must be the true one.
    template <typename Signature, typename... Arguments>
    auto call(const char* name, Arguments... arguments) const {
        auto* function = reinterpret_cast<Signature*>(dlsym(handle_, name));
        if (function == nullptr) throw std::runtime_error(std::string("the fake has no ") + name);
        return function(arguments...);
    }
    bool has(const char* name) const { return dlsym(handle_, name) != nullptr; }

    void reset(std::size_t capacity) const { call<decltype(fake_reset)>("fake_reset", capacity); }
    void fail(const char* symbol, int code, unsigned n = 1, unsigned times = 1) const {
        call<decltype(fake_fail)>("fake_fail", symbol, n, code, times);
    }
    unsigned long calls(const char* symbol) const { return call<decltype(fake_calls)>("fake_calls", symbol); }
    unsigned long violations() const { return call<decltype(fake_violations)>("fake_violations"); }
    std::string last_violation() const { return call<decltype(fake_last_violation)>("fake_last_violation"); }
    unsigned long live(const char* what) const { return call<decltype(fake_live)>("fake_live", what); }
    void squat(std::size_t bytes) const { call<decltype(fake_squat)>("fake_squat", bytes); }

    const std::string path;

   private:
    void* handle_;
};

}  // namespace dormouse
