// A machine that starts no more threads: what needs one says so and changes nothing, what can do without does, and all
// of it works again later.
#include <gtest/gtest.h>
#include <pthread.h>

#include <atomic>
#include <chrono>
#include <string>
#include <system_error>
#include <thread>

#include "collector.hpp"
#include "dormouse/error.hpp"
#include "support/rig.hpp"

namespace dormouse {
namespace {

using namespace dormouse::testing;
using namespace std::chrono_literals;

// While it lives no thread can be started: their stacks would need more than all addresses.
class NoThreads {
   public:
    NoThreads() {
        pthread_getattr_default_np(&was_);
        pthread_attr_t endless;
        pthread_getattr_default_np(&endless);
        pthread_attr_setstacksize(&endless, std::size_t{1} << 48);
        pthread_setattr_default_np(&endless);
        pthread_attr_destroy(&endless);
    }
    ~NoThreads() {
        pthread_setattr_default_np(&was_);
        pthread_attr_destroy(&was_);
    }
    NoThreads(const NoThreads&) = delete;
    NoThreads& operator=(const NoThreads&) = delete;

   private:
    pthread_attr_t was_{};
};

TEST(NoThreads, AreStartedWhileItLives) {
    {
        const NoThreads none;
        EXPECT_THROW(std::thread([] {}), std::system_error);
    }
    std::thread([] {}).join();
}

// What `call` throws, in words; empty where it works.
template <class Call>
std::string refusal(const Call& call) {
    const NoThreads none;
    try {
        call();
    } catch (const error& failure) {
        return failure.what();
    }
    return {};
}

class WithoutThreads : public ::testing::TestWithParam<Kind> {};
INSTANTIATE_TEST_SUITE_P(On, WithoutThreads, ::testing::Values(on_host, on_cuda, on_cuda_ring, on_acl, on_acl_ring),
                         ::testing::PrintToStringParamName());

TEST_P(WithoutThreads, ASleepChangesNothingAndSaysWhy) {
    Rig rig(GetParam());
    const Written written = rig.write(20 * MiB, "weights");
    const std::string words = refusal([&] { rig->sleep(1); });
    EXPECT_NE(words.find("no thread for a transfer could be started"), std::string::npos) << words;
    EXPECT_NE(words.find("raise the limit on threads"), std::string::npos) << words;
    EXPECT_EQ(rig.state("weights"), TagState::resident);
    EXPECT_TRUE(written.intact());
    rig->sleep(1);
    rig->wake({});
    EXPECT_TRUE(written.intact());
}

TEST_P(WithoutThreads, AWakeComesOrEverythingSleepsOn) {
    Rig rig(GetParam());
    const Written written = rig.write(20 * MiB, "weights");
    rig->sleep(1);
    const std::string words = refusal([&] { rig->wake({}); });
    EXPECT_EQ(rig.state("weights"), words.empty() ? TagState::resident : TagState::offloaded) << words;
    rig->wake({});
    EXPECT_TRUE(written.intact());
}

TEST(StagingWithoutThreads, SaysSoAndTheNextOneStages) {
    Rig rig(on_cuda);
    const Written written = rig.write(8 * MiB, "weights");
    const std::string words = refusal([&] { rig->stage({}); });
    EXPECT_NE(words.find("no thread for a staging could be started"), std::string::npos) << words;
    EXPECT_NE(words.find("raise the limit on threads"), std::string::npos) << words;
    rig->wait_staged();
    EXPECT_FALSE(rig->stats().staging.active);
    EXPECT_EQ(rig->stats().staging.error, words);
    rig->stage({.bytes_per_second = 0, .piece_bytes = MiB});
    rig->wait_staged();
    EXPECT_EQ(rig->sleep(1).clean_bytes, written.bytes);
}

TEST(CollectorWithoutThreads, CollectsAfterTheNextRelease) {
    const auto steering = std::make_shared<Steering>();
    std::atomic<int> created = 0;
    steering->before([&](std::string_view call) { created += call == "create" ? 1 : 0; });
    SteeredDriver driver(make_driver("host", {.device = 0, .library = "", .capacity = 8 * MiB}), steering);
    {
        Collector collector(driver, 0.01);
        {
            const NoThreads none;
            collector.released();
        }
        std::this_thread::sleep_for(50ms);
        EXPECT_EQ(created, 0);
        collector.released();
        for (int i = 0; i < 10'000 && created == 0; ++i) {
            std::this_thread::sleep_for(2ms);
        }
        EXPECT_EQ(created, 1);
    }
    steering->before(nullptr);
}

}  // namespace
}  // namespace dormouse
