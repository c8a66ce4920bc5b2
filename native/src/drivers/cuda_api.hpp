// The functions of the CUDA driver that this project calls, found in libcuda.so.1 at run time, and what their codes
// mean here.
//
// The names are the exported ones, with the version that fits the declarations: a name without it may be an older
// function with other arguments. Each entry knows its name, so that an error can say which call it was.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>

#include "cuda_abi.hpp"
#include "library.hpp"

namespace dormouse::cuda {

template <typename... Arguments>
class Call {
   public:
    Call(const Library& library, const char* name) : name_(name) { library.load(function_, name); }
    // A function that stands in for the library's (tests).
    Call(const char* name, Result (*function)(Arguments...)) : name_(name), function_(function) {}
    Result operator()(Arguments... arguments) const { return function_(arguments...); }
    const char* name() const noexcept { return name_; }

   private:
    const char* name_;
    Result (*function_)(Arguments...) = nullptr;
};

class Api {
   private:
    Library library_;  // first: the entries below are looked up in it

   public:
    // `library` as dlopen takes it. Throws driver_error where it, or a symbol of it, is missing. Calls nothing yet.
    explicit Api(const std::string& library) : library_(library) {}

    Call<unsigned> init{library_, "cuInit"};
    Call<int*> driver_version{library_, "cuDriverGetVersion"};
    Call<Result, const char**> error_name{library_, "cuGetErrorName"};
    Call<Result, const char**> error_string{library_, "cuGetErrorString"};

    Call<Device*, int> device_get{library_, "cuDeviceGet"};
    Call<int*, int, Device> device_attribute{library_, "cuDeviceGetAttribute"};
    Call<Uuid*, Device> device_uuid{library_, "cuDeviceGetUuid_v2"};

    Call<Context*, Device> primary_retain{library_, "cuDevicePrimaryCtxRetain"};
    Call<Device> primary_release{library_, "cuDevicePrimaryCtxRelease_v2"};
    Call<Context*> context_get{library_, "cuCtxGetCurrent"};
    Call<Context> context_set{library_, "cuCtxSetCurrent"};
    Call<> context_synchronize{library_, "cuCtxSynchronize"};
    Call<int*, int*> stream_priorities{library_, "cuCtxGetStreamPriorityRange"};

    Call<std::size_t*, std::size_t*> memory_info{library_, "cuMemGetInfo_v2"};
    Call<std::size_t*, const AllocationProperties*, int> granularity{library_, "cuMemGetAllocationGranularity"};
    Call<DeviceAddress*, std::size_t, std::size_t, DeviceAddress, std::uint64_t> reserve{library_,
                                                                                         "cuMemAddressReserve"};
    Call<DeviceAddress, std::size_t> unreserve{library_, "cuMemAddressFree"};
    Call<Handle*, std::size_t, const AllocationProperties*, std::uint64_t> create{library_, "cuMemCreate"};
    Call<Handle> release{library_, "cuMemRelease"};
    Call<DeviceAddress, std::size_t, std::size_t, Handle, std::uint64_t> map{library_, "cuMemMap"};
    Call<DeviceAddress, std::size_t, const Access*, std::size_t> set_access{library_, "cuMemSetAccess"};
    Call<DeviceAddress, std::size_t> unmap{library_, "cuMemUnmap"};
    Call<DeviceAddress*, std::size_t> device_allocate{library_, "cuMemAlloc_v2"};
    Call<DeviceAddress> device_free{library_, "cuMemFree_v2"};

    Call<void**, std::size_t, unsigned> host_allocate{library_, "cuMemHostAlloc"};
    Call<void*> host_free{library_, "cuMemFreeHost"};
    Call<void*, std::size_t, unsigned> host_register{library_, "cuMemHostRegister_v2"};
    Call<void*> host_unregister{library_, "cuMemHostUnregister"};

    Call<StreamHandle*, unsigned, int> stream_create{library_, "cuStreamCreateWithPriority"};
    Call<StreamHandle> stream_destroy{library_, "cuStreamDestroy_v2"};
    Call<StreamHandle> stream_synchronize{library_, "cuStreamSynchronize"};
    Call<StreamHandle> stream_query{library_, "cuStreamQuery"};
    Call<DeviceAddress, const void*, std::size_t, StreamHandle> copy_to_device{library_, "cuMemcpyHtoDAsync_v2"};
    Call<void*, DeviceAddress, std::size_t, StreamHandle> copy_to_host{library_, "cuMemcpyDtoHAsync_v2"};
    Call<DeviceAddress, unsigned char, std::size_t, StreamHandle> fill{library_, "cuMemsetD8Async"};

    Call<Module*, const void*> module_load{library_, "cuModuleLoadData"};
    Call<Module> module_unload{library_, "cuModuleUnload"};
    Call<Function*, Module, const char*> module_function{library_, "cuModuleGetFunction"};
    Call<Function, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, StreamHandle, void**, void**>
        launch{library_, "cuLaunchKernel"};

    // Makes a call and throws driver_error if it fails, whatever the code.
    template <typename... Arguments>
    void check(const Call<Arguments...>& call, std::type_identity_t<Arguments>... arguments) const {
        if (const Result code = call(arguments...); code != success) fail(call.name(), code);
    }

    // The same for a call that takes memory of the device: a lack of it is out_of_memory with `needed` bytes.
    template <typename... Arguments>
    void check_room(std::size_t needed, const Call<Arguments...>& call,
                    std::type_identity_t<Arguments>... arguments) const {
        if (const Result code = call(arguments...); code != success) fail(call.name(), code, needed);
    }

    // The same for a call that asks whether something is done: false is "not yet".
    template <typename... Arguments>
    bool check_done(const Call<Arguments...>& call, std::type_identity_t<Arguments>... arguments) const {
        const Result code = call(arguments...);
        if (code != success && code != error_not_ready) fail(call.name(), code);
        return code == success;
    }

    // The library's own words for a code.
    std::string words(Result code) const;

   private:
    [[noreturn]] void fail(const char* call, Result code) const;
    [[noreturn]] void fail(const char* call, Result code, std::size_t needed) const;
};

}  // namespace dormouse::cuda
