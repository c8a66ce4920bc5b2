// The functions of AscendCL that this project calls, found in libascendcl.so at run time, and what their codes mean
// here.
//
// Each entry knows its name, so that an error can say which call it was. What older versions of CANN lack is optional:
// such an entry is empty there, and must be asked (exists()) before it is called.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>

#include "acl_abi.hpp"
#include "library.hpp"

namespace dormouse::acl {

enum class Need { required, optional };

template <typename... Arguments>
class Call {
   public:
    Call(const Library& library, const char* name, Need need = Need::required) : name_(name) {
        if (need == Need::required) {
            library.load(function_, name);
        } else {
            library.load_optional(function_, name);
        }
    }
    Error operator()(Arguments... arguments) const { return function_(arguments...); }
    const char* name() const noexcept { return name_; }
    bool exists() const noexcept { return function_ != nullptr; }

   private:
    const char* name_;
    Error (*function_)(Arguments...) = nullptr;
};

class Api {
   private:
    Library library_;  // first: the entries below are looked up in it

   public:
    // `library` as dlopen takes it. Throws driver_error where it, or a symbol of it, is missing. Calls nothing yet.
    explicit Api(const std::string& library);

    Call<const char*> init{library_, "aclInit"};
    Call<std::int32_t*, std::int32_t*, std::int32_t*> get_version{library_, "aclrtGetVersion", Need::optional};

    Call<std::int32_t> set_device{library_, "aclrtSetDevice"};
    Call<Context*> context_get{library_, "aclrtGetCurrentContext"};
    Call<Context> context_set{library_, "aclrtSetCurrentContext"};
    Call<> device_synchronize{library_, "aclrtSynchronizeDevice"};

    Call<std::int32_t, std::size_t*, std::size_t*> memory_info{library_, "aclrtGetMemInfo"};
    Call<const PhysicalProperties*, int, std::size_t*> granularity{library_, "aclrtMemGetAllocationGranularity"};
    Call<void**, std::size_t, std::size_t, void*, std::uint64_t> reserve{library_, "aclrtReserveMemAddress"};
    Call<void*> unreserve{library_, "aclrtReleaseMemAddress"};
    Call<Handle*, std::size_t, const PhysicalProperties*, std::uint64_t> create{library_, "aclrtMallocPhysical"};
    Call<Handle> release{library_, "aclrtFreePhysical"};
    Call<void*, std::size_t, std::size_t, Handle, std::uint64_t> map{library_, "aclrtMapMem"};
    Call<void*> unmap{library_, "aclrtUnmapMem"};

    Call<void**, std::size_t> host_allocate{library_, "aclrtMallocHost"};
    Call<void*> host_free{library_, "aclrtFreeHost"};
    Call<void*, std::uint64_t, std::uint32_t> host_register{library_, "aclrtHostRegisterV2", Need::optional};
    Call<void*> host_unregister{library_, "aclrtHostUnregister", Need::optional};

    Call<StreamHandle*, std::uint32_t, std::uint32_t> stream_create{library_, "aclrtCreateStreamWithConfig"};
    Call<StreamHandle> stream_destroy{library_, "aclrtDestroyStream"};
    Call<StreamHandle> stream_synchronize{library_, "aclrtSynchronizeStream"};
    Call<void*, std::size_t, const void*, std::size_t, int, StreamHandle> copy{library_, "aclrtMemcpyAsync"};

    // Makes a call and throws driver_error if it fails, whatever the code.
    template <typename... Arguments>
    void check(const Call<Arguments...>& call, std::type_identity_t<Arguments>... arguments) const {
        if (const Error code = call(arguments...); code != success) fail(call.name(), code);
    }

    // The same for a call that takes memory of the device: a lack of it is out_of_memory with `needed` bytes.
    template <typename... Arguments>
    void check_room(std::size_t needed, const Call<Arguments...>& call,
                    std::type_identity_t<Arguments>... arguments) const {
        if (const Error code = call(arguments...); code != success) fail_room(needed, call.name(), code);
    }

    // Throw what a code of that call means.
    [[noreturn]] void fail(const char* call, Error code) const;
    [[noreturn]] void fail_room(std::size_t needed, const char* call, Error code) const;

   private:
    const char* (*recent_error_message_)() = nullptr;  // optional
};

}  // namespace dormouse::acl
