// The controls of a fake driver library (fake_control.h), found in the very object that the driver under test loads.
#pragma once

#include <dlfcn.h>

#include <climits>
#include <cstddef>
#include <stdexcept>
#include <string>

namespace dormouse::testing {

class FakeLibrary {
   public:
    static FakeLibrary& cuda() {
        static FakeLibrary library(FAKE_LIBCUDA_PATH);
        return library;
    }
    static FakeLibrary& acl() {
        static FakeLibrary library(FAKE_LIBASCENDCL_PATH);
        return library;
    }

    static constexpr unsigned for_ever = UINT_MAX;

    const std::string path;
    void (*reset)(std::size_t capacity) = nullptr;
    void (*fail)(const char* symbol, unsigned n, int code, unsigned times) = nullptr;
    void (*heal)() = nullptr;
    unsigned long (*calls)(const char* symbol) = nullptr;
    const char* (*call_name)(unsigned long k) = nullptr;
    unsigned long (*violations)() = nullptr;
    const char* (*last_violation)() = nullptr;
    unsigned long (*live)(const char* what) = nullptr;
    void (*squat)(std::size_t bytes) = nullptr;
    void (*granularity)(std::size_t bytes) = nullptr;
    void (*stall)(unsigned questions) = nullptr;

   private:
    explicit FakeLibrary(const char* file) : path(file) {
        void* handle = dlopen(file, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
        if (handle == nullptr) {
            throw std::runtime_error(dlerror());
        }
        load(handle, reset, "fake_reset");
        load(handle, fail, "fake_fail");
        load(handle, heal, "fake_heal");
        load(handle, calls, "fake_calls");
        load(handle, call_name, "fake_call_name");
        load(handle, violations, "fake_violations");
        load(handle, last_violation, "fake_last_violation");
        load(handle, live, "fake_live");
        load(handle, squat, "fake_squat");
        load(handle, granularity, "fake_granularity");
        load(handle, stall, "fake_stall");
    }

    template <typename Function>
    static void load(void* handle, Function& function, const char* name) {
        function = reinterpret_cast<Function>(dlsym(handle, name));
        if (function == nullptr) {
            throw std::runtime_error(std::string("the fake lacks ") + name);
        }
    }
};

}  // namespace dormouse::testing
