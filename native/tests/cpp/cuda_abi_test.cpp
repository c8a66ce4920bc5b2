// Our declarations of the CUDA driver's interface against the vendor's own, where a compiler finds cuda.h.
//
// (Layouts are also fixed by static_assert in cuda_abi.hpp, header or not.)
#include "drivers/cuda_abi.hpp"

#include <gtest/gtest.h>

#if __has_include(<cuda.h>)
#include <cuda.h>

#include <string_view>

#include "drivers/cuda_api.hpp"

namespace dormouse::cuda {
namespace {

TEST(CudaAbi, LayoutsAreTheHeaders) {
    static_assert(sizeof(AllocationProperties) == sizeof(CUmemAllocationProp));
    static_assert(alignof(AllocationProperties) == alignof(CUmemAllocationProp));
    static_assert(offsetof(AllocationProperties, type) == offsetof(CUmemAllocationProp, type));
    static_assert(offsetof(AllocationProperties, requested_handle_types) ==
                  offsetof(CUmemAllocationProp, requestedHandleTypes));
    static_assert(offsetof(AllocationProperties, location) == offsetof(CUmemAllocationProp, location));
    static_assert(offsetof(AllocationProperties, win32_security) == offsetof(CUmemAllocationProp, win32HandleMetaData));
    static_assert(offsetof(AllocationProperties, compression_type) ==
                  offsetof(CUmemAllocationProp, allocFlags.compressionType));
    static_assert(offsetof(AllocationProperties, rdma_capable) ==
                  offsetof(CUmemAllocationProp, allocFlags.gpuDirectRDMACapable));
    static_assert(offsetof(AllocationProperties, usage) == offsetof(CUmemAllocationProp, allocFlags.usage));
    static_assert(offsetof(AllocationProperties, reserved) == offsetof(CUmemAllocationProp, allocFlags.reserved));
    static_assert(sizeof(Location) == sizeof(CUmemLocation));
    static_assert(offsetof(Location, type) == offsetof(CUmemLocation, type));
    static_assert(offsetof(Location, id) == offsetof(CUmemLocation, id));
    static_assert(sizeof(Access) == sizeof(CUmemAccessDesc));
    static_assert(offsetof(Access, location) == offsetof(CUmemAccessDesc, location));
    static_assert(offsetof(Access, flags) == offsetof(CUmemAccessDesc, flags));
    static_assert(sizeof(Uuid) == sizeof(CUuuid));
}

TEST(CudaAbi, ConstantsAreTheHeaders) {
    static_assert(int{success} == int{CUDA_SUCCESS});
    static_assert(int{error_out_of_memory} == int{CUDA_ERROR_OUT_OF_MEMORY});
    static_assert(int{error_not_ready} == int{CUDA_ERROR_NOT_READY});
    static_assert(int{error_not_supported} == int{CUDA_ERROR_NOT_SUPPORTED});
    static_assert(int{attribute_multiprocessors} == int{CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT});
    static_assert(int{attribute_host_address_of_registered_memory} ==
                  int{CU_DEVICE_ATTRIBUTE_CAN_USE_HOST_POINTER_FOR_REGISTERED_MEM});
    static_assert(int{attribute_virtual_memory} == int{CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED});
    static_assert(int{attribute_rdma_with_virtual_memory} ==
                  int{CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_WITH_CUDA_VMM_SUPPORTED});
    static_assert(int{allocation_pinned} == int{CU_MEM_ALLOCATION_TYPE_PINNED});
    static_assert(int{handle_none} == int{CU_MEM_HANDLE_TYPE_NONE});
    static_assert(int{location_device} == int{CU_MEM_LOCATION_TYPE_DEVICE});
    static_assert(int{access_read_write} == int{CU_MEM_ACCESS_FLAGS_PROT_READWRITE});
    static_assert(int{granularity_minimum} == int{CU_MEM_ALLOC_GRANULARITY_MINIMUM});
    static_assert(unsigned{host_portable} == unsigned{CU_MEMHOSTREGISTER_PORTABLE});
    static_assert(unsigned{host_portable} == unsigned{CU_MEMHOSTALLOC_PORTABLE});
    static_assert(unsigned{stream_non_blocking} == unsigned{CU_STREAM_NON_BLOCKING});
}

// An argument is passed alike if it is of the same size and the same kind (pointers and integers, no structs).
template <typename Ours, typename Theirs>
constexpr bool passed_alike = sizeof(Ours) == sizeof(Theirs) && !std::is_class_v<Ours> && !std::is_class_v<Theirs> &&
                              !std::is_floating_point_v<Ours> && !std::is_floating_point_v<Theirs>;

template <typename... Ours, typename... Theirs>
consteval bool called_alike(Call<Ours...> Api::*, CUresult (*)(Theirs...)) {
    if constexpr (sizeof...(Ours) != sizeof...(Theirs)) {
        return false;
    } else {
        return (passed_alike<Ours, Theirs> && ...);
    }
}

// The names are in a table that has been loaded: any library that has them all will do.
template <typename Entry>
std::string_view name_of(Entry Api::* entry) {
    static const Api table(FAKE_LIBCUDA_PATH);
    return (table.*entry).name();
}

#define TEXT_OF(name) #name
// cuda.h turns an unversioned name into the version that fits its declarations: the export that we must look up.
#define EXPORT_OF(name) TEXT_OF(name)
#define EXPECT_ENTRY(entry, function)                                                                  \
    do {                                                                                               \
        static_assert(called_alike(&Api::entry, static_cast<decltype(&::function)>(nullptr)), #entry); \
        EXPECT_EQ(name_of(&Api::entry), EXPORT_OF(function));                                          \
    } while (false)

TEST(CudaAbi, EachCallHasTheHeadersArgumentsAndItsExportedName) {
    EXPECT_ENTRY(init, cuInit);
    EXPECT_ENTRY(driver_version, cuDriverGetVersion);
    EXPECT_ENTRY(error_name, cuGetErrorName);
    EXPECT_ENTRY(error_string, cuGetErrorString);
    EXPECT_ENTRY(device_get, cuDeviceGet);
    EXPECT_ENTRY(device_attribute, cuDeviceGetAttribute);
    EXPECT_ENTRY(primary_retain, cuDevicePrimaryCtxRetain);
    EXPECT_ENTRY(primary_release, cuDevicePrimaryCtxRelease);
    EXPECT_ENTRY(context_get, cuCtxGetCurrent);
    EXPECT_ENTRY(context_set, cuCtxSetCurrent);
    EXPECT_ENTRY(context_synchronize, cuCtxSynchronize);
    EXPECT_ENTRY(stream_priorities, cuCtxGetStreamPriorityRange);
    EXPECT_ENTRY(memory_info, cuMemGetInfo);
    EXPECT_ENTRY(granularity, cuMemGetAllocationGranularity);
    EXPECT_ENTRY(reserve, cuMemAddressReserve);
    EXPECT_ENTRY(unreserve, cuMemAddressFree);
    EXPECT_ENTRY(create, cuMemCreate);
    EXPECT_ENTRY(release, cuMemRelease);
    EXPECT_ENTRY(map, cuMemMap);
    EXPECT_ENTRY(set_access, cuMemSetAccess);
    EXPECT_ENTRY(unmap, cuMemUnmap);
    EXPECT_ENTRY(device_allocate, cuMemAlloc);
    EXPECT_ENTRY(device_free, cuMemFree);
    EXPECT_ENTRY(host_allocate, cuMemHostAlloc);
    EXPECT_ENTRY(host_free, cuMemFreeHost);
    EXPECT_ENTRY(host_register, cuMemHostRegister);
    EXPECT_ENTRY(host_unregister, cuMemHostUnregister);
    EXPECT_ENTRY(stream_create, cuStreamCreateWithPriority);
    EXPECT_ENTRY(stream_destroy, cuStreamDestroy);
    EXPECT_ENTRY(stream_synchronize, cuStreamSynchronize);
    EXPECT_ENTRY(stream_query, cuStreamQuery);
    EXPECT_ENTRY(copy_to_device, cuMemcpyHtoDAsync);
    EXPECT_ENTRY(copy_to_host, cuMemcpyDtoHAsync);
    EXPECT_ENTRY(fill, cuMemsetD8Async);
    EXPECT_ENTRY(module_load, cuModuleLoadData);
    EXPECT_ENTRY(module_unload, cuModuleUnload);
    EXPECT_ENTRY(module_function, cuModuleGetFunction);
    EXPECT_ENTRY(launch, cuLaunchKernel);
    // Headers before CUDA 13 declare both; the second version is the one that tells parts of a split device apart.
    static_assert(called_alike(&Api::device_uuid, static_cast<decltype(&::cuDeviceGetUuid)>(nullptr)));
}

}  // namespace
}  // namespace dormouse::cuda
#else
TEST(CudaAbi, IsComparedWithTheVendorsHeader) {
    GTEST_SKIP() << "no cuda.h on the include path";
}
#endif
