// Whose context is current after a call, for every way in which a thread can come: what a process with several devices
// depends on. The calls of the library are stood in for, as the fake library has one context only.
#include "drivers/cuda_context.hpp"

#include <gtest/gtest.h>

#include <thread>

#include "dormouse/error.hpp"

namespace dormouse::cuda {
namespace {

int places[3];
const Context ours = &places[0];
const Context another_device = &places[1];
const Context second_driver = &places[2];

thread_local Context current = nullptr;
thread_local int sets = 0;
Result set_code = success;

Result get(Context* context) {
    *context = current;
    return success;
}

Result set(Context context) {
    if (set_code != success) return set_code;
    current = context;
    ++sets;
    return success;
}

Result retain(Context* context, Device device) {
    *context = device == 0 ? ours : second_driver;
    return success;
}

Result release(Device) {
    return success;
}

class CudaContext : public ::testing::Test {
   protected:
    CudaContext() : api(FAKE_LIBCUDA_PATH) {
        api.context_get = {"cuCtxGetCurrent", &get};
        api.context_set = {"cuCtxSetCurrent", &set};
        api.primary_retain = {"cuDevicePrimaryCtxRetain", &retain};
        api.primary_release = {"cuDevicePrimaryCtxRelease_v2", &release};
        current = nullptr;
        sets = 0;
        set_code = success;
    }
    Api api;
};

TEST_F(CudaContext, IsSetOnAThreadThatHasNoneAndStays) {
    const PrimaryContext context(api, 0);
    {
        const PrimaryContext::Scope scope(context);
    }
    EXPECT_EQ(current, ours);
    {
        const PrimaryContext::Scope scope(context);
    }
    EXPECT_EQ(sets, 1) << "the second time it was there";
}

TEST_F(CudaContext, IsSetOnEachThread) {
    const PrimaryContext context(api, 0);
    const PrimaryContext::Scope scope(context);
    std::thread([&] {
        const PrimaryContext::Scope own(context);
        EXPECT_EQ(current, ours);
    }).join();
}

TEST_F(CudaContext, GivesAThreadOfAnotherContextThatOneBack) {
    const PrimaryContext context(api, 0);
    current = another_device;
    {
        const PrimaryContext::Scope scope(context);
        EXPECT_EQ(current, ours);
    }
    EXPECT_EQ(current, another_device);
}

TEST_F(CudaContext, GivesItBackAlsoWhenTheCallThrows) {
    const PrimaryContext context(api, 0);
    current = another_device;
    EXPECT_THROW(
        {
            const PrimaryContext::Scope scope(context);
            throw error("the call");
        },
        error);
    EXPECT_EQ(current, another_device);
}

TEST_F(CudaContext, OfTwoDriversOnOneThreadAreEachCurrentInItsOwnCalls) {
    const PrimaryContext first(api, 0);
    const PrimaryContext second(api, 1);
    {
        const PrimaryContext::Scope scope(first);
    }
    {
        const PrimaryContext::Scope scope(second);
        EXPECT_EQ(current, second_driver);
    }
    {
        const PrimaryContext::Scope scope(first);
        EXPECT_EQ(current, ours);
    }
    EXPECT_EQ(current, ours);
}

TEST_F(CudaContext, ThatCannotBeSetIsAnErrorAndMovesNobody) {
    const PrimaryContext context(api, 0);
    current = another_device;
    set_code = 201;
    try {
        const PrimaryContext::Scope scope(context);
        FAIL() << "the failure was lost";
    } catch (const driver_error& failure) {
        EXPECT_EQ(failure.call, "cuCtxSetCurrent");
        EXPECT_EQ(failure.code, 201);
    }
    EXPECT_EQ(current, another_device);
}

}  // namespace
}  // namespace dormouse::cuda
