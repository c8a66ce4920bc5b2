// Random requests to a pool, and a model that says what each must do.
//
// The model keeps of each segment where its bytes are and what they are. After every step the pool's figures agree with
// it, addresses are where they were, what is resident has its bytes, and the device holds no more than its capacity.
// A step may meet a broken device, a squatter or a host without memory; then it has either happened or not. A wake may
// meet a device that clears memory, and then be pulled.
//
// DORMOUSE_MODEL_STEPS sets how many steps each device plays, DORMOUSE_SEED replays a run.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "dormouse/error.hpp"
#include "support/rig.hpp"

namespace dormouse {
namespace {

using namespace dormouse::testing;

std::uint64_t from_environment(const char* name, std::uint64_t otherwise) {
    const char* text = std::getenv(name);
    return text == nullptr || *text == '\0' ? otherwise : std::strtoull(text, nullptr, 10);
}

// Steps that a device of slow pages plays unless told; the others play four times as many.
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
constexpr std::uint64_t few = 250;
#else
constexpr std::uint64_t few = 1000;
#endif

// So many that each kind of step will have met the others.
constexpr std::uint64_t many = 4000;

const std::vector<std::string> tag_names{"weights", "kv_cache", "runtime", "workspace", "default"};

// ── the model ───────────────────────────────────────────────────────────────────────────────────────────

struct Known {
    std::string tag;
    Written written;
    TagState where = TagState::resident;  // of its bytes; offloaded in a discarded tag: kept
    bool defined = true;                  // the bytes are those that were written
    // Bytes of valid backups, where the model can know them.
    std::size_t backup = 0;
    bool backup_known = true;
};

struct Model {
    std::map<Address, Known> segments;
    std::map<std::string, TagState> tags;
    std::size_t keep_up_to;

    // Size up to which a discard keeps a segment, by tag: the promise of tag.hpp in other words.
    std::size_t kept(const std::string& tag) const { return tag == "kv_cache" || tag == "weights" ? keep_up_to : 0; }
    static TagState at_level(const std::string& tag, int level) {
        const bool dropped = tag == "kv_cache" || tag == "workspace";
        const bool irreplaceable = tag == "runtime";
        return dropped || (level == 2 && !irreplaceable) ? TagState::discarded : TagState::offloaded;
    }

    void move(const std::string& tag, TagState to) {
        const TagState from = std::exchange(tags.at(tag), to);
        for (auto& [address, segment] : segments) {
            if (segment.tag != tag || from == to) {
                continue;
            }
            if (to == TagState::resident) {
                segment.defined = segment.where == TagState::offloaded && segment.defined;
                segment.where = TagState::resident;
            } else {
                const bool survives = to == TagState::offloaded || segment.written.bytes <= kept(tag);
                const bool keeps = survives && segment.where != TagState::discarded;
                segment.where = keeps ? TagState::offloaded : TagState::discarded;
                segment.backup = keeps ? segment.written.bytes : 0;
                segment.backup_known = true;
            }
        }
    }
};

// ── one run ─────────────────────────────────────────────────────────────────────────────────────────────

class Player {
   public:
    Player(const Kind& kind, std::uint64_t seed)
        : random_(seed),
          unit_(kind.driver == std::string("host") ? 2 * MiB : 64 * 1024),
          room_(24 * unit_),
          rig_(kind, options(unit_), room_ + 4 * MiB, unit_),
          others_(rig_->stats().memory.free - room_) {
        rig_.squat(others_);
        model_.keep_up_to = unit_;
    }

    void play(std::uint64_t steps) {
        for (std::uint64_t step = 0; step < steps && !::testing::Test::HasFailure(); ++step) {
            const std::string did = one_step();
            SCOPED_TRACE("step " + std::to_string(step) + ": " + did);
            check();
        }
        mend();
        for (const std::string& tag : sleeping()) {
            wake({tag});
            check();
        }
        const bool pulls = rig_->stats().store.pulls;
        EXPECT_TRUE(pulls ? pulled > 0 || steps < few : pulled == 0) << pulled << " bytes pulled";
        EXPECT_TRUE(rig_.digests ? in_grains > 0 || steps < many : in_grains == 0) << in_grains << " sleeps in grains";
        rig_.may_lose = rig_.may_lose || faults_ != 0;
        rig_.close();
    }

    std::uint64_t transitions = 0, faults = 0, refusals = 0, stagings = 0, pulled = 0, in_grains = 0;

   private:
    static PoolOptions options(std::size_t unit) {
        PoolOptions chosen = small_pool();
        chosen.chunk_bytes = 2 * unit;
        chosen.grain_bytes = unit / 4;
        chosen.keep_up_to = unit;
        chosen.store.ring_buffer = unit;
        chosen.memory_retries = 1;
        chosen.retry_seconds = 0;
        // So short that both ways of a restore are met.
        chosen.store.pull_pace = {.probe_bytes = unit / 2,
                                  .batch_bytes = unit / 4,
                                  .pull_bytes = unit / 2,
                                  .late_seconds = 2e-5,
                                  .round_seconds = 2e-5,
                                  .nap_seconds = 0};
        return chosen;
    }

    std::size_t below(std::size_t n) { return static_cast<std::size_t>(random_() % n); }
    bool chance(std::size_t percent) { return below(100) < percent; }

    std::string one_step() {
        mend();
        if (chance(10)) {
            breaks_ = break_something();
        }
        const std::size_t dice = below(100);
        if (dice < 22) {
            return allocate();
        }
        if (dice < 36) {
            return free_one();
        }
        if (dice < 48) {
            return write_one();
        }
        if (dice < 51) {
            rig_->mark_dirty({});
            return "mark dirty";
        }
        if (dice < 55) {
            return change_again_and_again();
        }
        if (dice < 60) {
            return stage();
        }
        if (dice < 63) {
            return release_backups();
        }
        if (dice < 72) {
            return sleep_level(chance(60) ? 1 : 2);
        }
        if (dice < 77) {
            return sleep_list();
        }
        if (dice < 81) {
            return discard();
        }
        std::vector<std::string> some = sleeping();
        std::shuffle(some.begin(), some.end(), random_);
        if (chance(60)) {
            some.clear();
        } else if (!some.empty()) {
            some.resize(1 + below(some.size()));
        }
        return wake(some);
    }

    // ── things that break ──

    // Puts the world in order again; what was left behind is swept by the next sleep that works.
    void mend() {
        mend_calls();
        rig_.steering->host_available = unlimited;
        rig_.squat(others_);
        breaks_.clear();
    }

    void mend_calls() {
        if (rig_.fake != nullptr) {
            rig_.fake->heal();
        }
        rig_.steering->before({});
    }

    std::string break_something() {
        ++faults;
        switch (below(4)) {
            case 0:
                rig_.squat(others_ + rig_->stats().memory.free);
                return "a squatter";
            case 1:
                rig_.steering->host_available = below(2) * unit_;
                return "no host memory";
            case 2:
                return break_a_call(1, chance(50));
            default:
                return break_a_call(1000000, chance(50));
        }
    }

    std::string break_a_call(unsigned times, bool room) {
        ++faults_;
        handles_may_stay_ = true;
        const auto n = static_cast<unsigned>(1 + below(40));
        if (rig_.fake != nullptr) {
            const bool cuda = rig_->driver().name() == "cuda";
            const char* create = cuda ? "cuMemCreate" : "aclrtMallocPhysical";
            rig_.fake->fail(room ? create : nullptr, room ? 1 + n % 4 : n, room ? (cuda ? 2 : 207001) : 999, times);
        } else {
            // The seam above the driver breaks: the same for a device that can't be broken itself.
            auto left = std::make_shared<std::atomic<unsigned>>(n);
            auto fires = std::make_shared<std::atomic<unsigned>>(times);
            rig_.steering->before([left, fires, room](std::string_view call) {
                if (left->load() > 1) {
                    --*left;
                } else if (fires->load() > 0 && (!room || call == "create")) {
                    --*fires;
                    if (call == "create" && room) {
                        throw out_of_memory(1, 0, "broken");
                    }
                    throw driver_error(call, 999, "broken");
                }
            });
        }
        return room ? "no room" : "a broken call";
    }

    // Runs a request; true when it worked. One that failed in a whole world is a bug.
    template <typename Action>
    bool attempt(Action action) {
        try {
            action();
            return true;
        } catch (const error& failure) {
            ++refusals;
            EXPECT_FALSE(breaks_.empty()) << "in a whole world: " << failure.what();
            return false;
        }
    }

    // ── requests ──

    std::string allocate() {
        const std::string tag = tag_names[below(tag_names.size())];
        const std::size_t bytes = 1 + below(6 * unit_);
        const std::size_t rounded = (bytes + unit_ - 1) / unit_ * unit_;
        const auto known = model_.tags.find(tag);
        const std::string words = "malloc " + std::to_string(bytes) + " for " + tag + broken();
        if (known != model_.tags.end() && known->second != TagState::resident) {
            EXPECT_THROW(rig_->malloc(bytes, tag), illegal_state);
            return words + " (asleep)";
        }
        Address address = 0;
        try {
            address = rig_->malloc(bytes, tag);
        } catch (const out_of_memory&) {
            ++refusals;
            slack_ = slack_ || !breaks_.empty();
            EXPECT_TRUE(!breaks_.empty() || mapped_ + rounded > room_ || slack_) << "there was room";
            return words + " (no room)";
        } catch (const error& failure) {
            EXPECT_FALSE(breaks_.empty()) << failure.what();
            slack_ = true;
            return words + " (failed)";
        }
        EXPECT_FALSE(model_.segments.contains(address));
        Known segment{.tag = tag, .written = {address, rounded, 0}};
        segment.written.digest = fill(address, rounded, random_());
        model_.segments.emplace(address, segment);
        model_.tags.emplace(tag, TagState::resident);
        return words;
    }

    Known* any_segment() {
        if (model_.segments.empty()) {
            return nullptr;
        }
        return &std::next(model_.segments.begin(), static_cast<std::ptrdiff_t>(below(model_.segments.size())))->second;
    }

    std::string free_one() {
        const Known* segment = any_segment();
        if (segment == nullptr) {
            EXPECT_THROW(rig_->free(4096), invalid_argument);
            return "free nothing";
        }
        const Address address = segment->written.address;
        rig_->free(address);  // never refused: what the device does not take back is given back later
        slack_ = slack_ || !breaks_.empty();
        model_.segments.erase(address);
        EXPECT_THROW(rig_->free(address), invalid_argument);
        return "free" + broken();
    }

    // With or without telling the pool, in whole or one byte, perhaps behind a staging's back.
    std::string write_one() {
        Known* segment = any_segment();
        if (segment == nullptr || segment->where != TagState::resident) {
            return "write nothing";
        }
        const bool told = chance(40);
        if (told) {
            rig_->mark_dirty({segment->tag});
        }
        const Written& written = segment->written;
        if (segment->defined && chance(50)) {
            flip(written.address + below(written.bytes));
        } else {
            scribble(written.address, written.bytes, random_());
            segment->defined = true;
        }
        segment->written.digest = digest_at(written.address, written.bytes);
        return told ? "write" : "write unseen";
    }

    // As an engine's counters do, of which each request changes some.
    std::string change_again_and_again() {
        Known* segment = any_segment();
        if (segment == nullptr || segment->where != TagState::resident || !segment->defined) {
            return "change nothing";
        }
        std::string words = "change again and again:";
        const Address address = segment->written.address;
        for (int i = 0; i < 3 && segment->where == TagState::resident; ++i) {
            flip(address + below(segment->written.bytes));
            segment->written.digest = digest_at(address, segment->written.bytes);
            words += " " + sleep_level(1);
            words += " " + wake({});
        }
        return words;
    }

    std::string stage() {
        if (!rig_.digests) {
            EXPECT_THROW(rig_->stage({}), illegal_state);
            return "no staging";
        }
        ++stagings;
        const bool slow = chance(30);
        if (!attempt([&] {
                rig_->stage(
                    {.bytes_per_second = slow ? 1e6 : 0, .piece_bytes = std::max<std::size_t>(4096, unit_ / 4)});
            })) {
            return "stage" + broken();
        }
        for (auto& [address, segment] : model_.segments) {
            segment.backup_known = segment.backup_known && segment.where != TagState::resident;
        }
        if (slow && chance(50)) {
            return "stage in the background" + broken();
        }
        if (slow) {
            rig_->stop_staging();
        }
        rig_->wait_staged();
        mend_calls();
        EXPECT_TRUE(slow || !breaks_.empty() || rig_->stats().staging.error.empty()) << rig_->stats().staging.error;
        return "stage" + broken();
    }

    std::string release_backups() {
        rig_->release_backups({});
        for (auto& [address, segment] : model_.segments) {
            if (segment.where == TagState::resident) {
                segment.backup = 0;
                segment.backup_known = true;
            }
        }
        return "release backups";
    }

    // Plays a transition to `wish` in pool and model. `forward`: a failure may have brought it there all the same.
    template <typename Action>
    void transition(const std::map<std::string, TagState>& wish, bool forward, Action action) {
        ++transitions;
        const bool worked = attempt(action);
        mend_calls();
        bool arrived = worked;
        if (!worked) {
            slack_ = true;
            const std::map<std::string, TagStats> now = rig_->stats().tags;
            for (const auto& [tag, state] : wish) {
                arrived = arrived || (now.at(tag).state == state && model_.tags.at(tag) != state);
            }
            EXPECT_TRUE(forward || !arrived) << "it failed and yet it happened";
            for (auto& [address, segment] : model_.segments) {  // some may have been copied, some dropped
                segment.backup_known = segment.backup_known && segment.where != TagState::resident;
            }
        }
        if (arrived) {
            for (const auto& [tag, state] : wish) {
                model_.move(tag, state);
            }
        }
        if (worked && forward) {
            slack_ = false;
        }
    }

    template <typename Action>
    void fall_asleep(const std::map<std::string, TagState>& wish, Action action) {
        std::vector<const Known*> awake;
        for (const auto& [address, segment] : model_.segments) {
            if (segment.where == TagState::resident) {
                awake.push_back(&segment);
            }
        }
        std::optional<Transition> slept;
        transition(wish, true, [&] { slept = action(); });
        std::size_t kept = 0;
        for (const Known* segment : awake) {
            kept += segment->where == TagState::offloaded ? segment->written.bytes : 0;
        }
        if (slept) {
            EXPECT_EQ(slept->clean_bytes + slept->copied_bytes, kept) << "each byte is one or the other";
            in_grains += slept->copied_bytes < slept->mismatched_bytes ? 1U : 0U;  // less than the chunks that changed
        }
    }

    std::map<std::string, TagState> everything_at(int level) const {
        std::map<std::string, TagState> wish;
        for (const auto& [tag, state] : model_.tags) {
            wish[tag] = Model::at_level(tag, level);
        }
        return wish;
    }

    // An offload of what is discarded is refused before anything moves.
    bool refused(const std::map<std::string, TagState>& wish) const {
        return std::any_of(wish.begin(), wish.end(), [&](const auto& wanted) {
            return wanted.second == TagState::offloaded && model_.tags.at(wanted.first) == TagState::discarded;
        });
    }

    std::string sleep_level(int level) {
        const auto wish = everything_at(level);
        const std::string words = "sleep " + std::to_string(level) + broken();
        if (refused(wish)) {
            EXPECT_THROW(rig_->sleep(level), illegal_state);
            return words + " (refused)";
        }
        fall_asleep(wish, [&] { return rig_->sleep(level); });
        return words;
    }

    std::string sleep_list() {
        std::vector<std::string> offload;
        std::map<std::string, TagState> wish;
        for (const auto& [tag, state] : model_.tags) {
            wish[tag] = TagState::discarded;
            if (chance(60)) {
                offload.push_back(tag);
                wish[tag] = TagState::offloaded;
            }
        }
        if (refused(wish)) {
            EXPECT_THROW(rig_->sleep(offload), illegal_state);
            return "sleep by list (refused)";
        }
        fall_asleep(wish, [&] { return rig_->sleep(offload); });
        return "sleep by list" + broken();
    }

    std::string discard() {
        if (model_.tags.empty()) {
            EXPECT_THROW(rig_->discard({"weights"}), invalid_argument);
            return "discard nothing";
        }
        const std::string tag =
            std::next(model_.tags.begin(), static_cast<std::ptrdiff_t>(below(model_.tags.size())))->first;
        transition({{tag, TagState::discarded}}, true, [&] { rig_->discard({tag}); });
        return "discard " + tag + broken();
    }

    std::vector<std::string> sleeping() const {
        std::vector<std::string> result;
        for (const auto& [tag, state] : model_.tags) {
            if (state != TagState::resident) {
                result.push_back(tag);
            }
        }
        return result;
    }

    // All of them when `tags` is empty.
    std::string wake(const std::vector<std::string>& tags) {
        std::map<std::string, TagState> wish;
        for (const std::string& tag : tags.empty() ? sleeping() : tags) {
            wish[tag] = TagState::resident;
        }
        std::size_t needed = 0;
        for (const auto& [address, segment] : model_.segments) {
            needed += wish.contains(segment.tag) ? segment.written.bytes : 0;
        }
        if ((slack_ || needed + mapped_ > room_) && breaks_.empty()) {
            breaks_ = "a full device";
        }
        const bool clearing = rig_.fake != nullptr && chance(50);
        if (clearing) {
            rig_.fake->stall(static_cast<unsigned>(below(60)));
        }
        transition(wish, false, [&] { pulled += rig_->wake(tags).pulled_bytes; });
        if (clearing) {
            rig_.fake->stall(0);
        }
        return "wake " + std::to_string(wish.size()) + (clearing ? " of a device that clears" : "") + broken();
    }

    std::string broken() const { return breaks_.empty() ? "" : ", with " + breaks_; }

    // ── invariants ──

    void check() {
        mend_calls();
        const PoolStats stats = rig_->stats();
        std::map<std::string, TagStats> expected;
        std::map<std::string, bool> exact;
        for (const auto& [tag, state] : model_.tags) {
            expected[tag].state = state;
            exact[tag] = true;
        }
        mapped_ = 0;
        for (const auto& [address, segment] : model_.segments) {
            TagStats& tag = expected[segment.tag];
            const std::size_t bytes = segment.written.bytes;
            const bool here = segment.where == TagState::resident;
            ++tag.segments;
            tag.bytes += bytes;
            tag.mapped_bytes += here ? bytes : 0;
            tag.kept_bytes += tag.state == TagState::discarded && segment.where == TagState::offloaded ? bytes : 0;
            tag.backup_bytes += segment.backup;
            exact[segment.tag] = exact[segment.tag] && segment.backup_known;
            mapped_ += here ? bytes : 0;
            EXPECT_EQ(rig_->size_of(address), bytes);
            if (here && segment.defined) {
                EXPECT_TRUE(segment.written.intact()) << segment.tag << " of " << bytes;
            }
        }
        ASSERT_EQ(stats.tags.size(), expected.size());
        std::size_t excess = 0;
        for (const auto& [name, tag] : expected) {
            const TagStats& told = stats.tags.at(name);
            EXPECT_EQ(to_string(told.state), std::string(to_string(tag.state))) << name;
            EXPECT_EQ(told.segments, tag.segments) << name;
            EXPECT_EQ(told.bytes, tag.bytes) << name;
            EXPECT_EQ(told.kept_bytes, tag.kept_bytes) << name;
            EXPECT_GE(told.mapped_bytes, tag.mapped_bytes) << name;
            excess += told.mapped_bytes - tag.mapped_bytes;
            if (exact[name]) {
                EXPECT_EQ(told.backup_bytes, tag.backup_bytes) << name;
            } else {
                EXPECT_LE(told.backup_bytes, tag.bytes) << name;
            }
        }
        excess = std::max(excess, stats.mapped_bytes - mapped_);
        EXPECT_GE(stats.mapped_bytes, mapped_);
        EXPECT_TRUE(excess == 0 || slack_) << excess << " bytes are held that nobody should hold";
        EXPECT_LE(stats.mapped_bytes, room_);
        if (rig_.fake != nullptr) {
            EXPECT_EQ(rig_.fake->violations(), 0U) << rig_.fake->last_violation();
            EXPECT_GE(rig_.fake->live("bytes"), stats.mapped_bytes);
            check_handles(stats);
        }
        if (breaks_ != "a squatter") {
            EXPECT_EQ(stats.memory.free + stats.mapped_bytes, room_) << "what nobody holds is free";
        }
    }

    // Awake, memory has a mapping and, where that alone does not keep it, a handle; a release that failed may leave a
    // handle until the memory goes. Asleep, nothing is left.
    void check_handles(const PoolStats& stats) {
        handles_may_stay_ = handles_may_stay_ && stats.mapped_bytes != 0;
        const unsigned long handles = rig_.fake->live("handles");
        const unsigned long mappings = rig_.fake->live("mappings");
        EXPECT_TRUE(stats.mapped_bytes != 0 || handles + mappings == 0) << handles << " and " << mappings;
        if (!rig_->driver().mapping_keeps_memory()) {
            EXPECT_GE(handles, mappings);
        } else if (!handles_may_stay_) {
            EXPECT_EQ(handles, 0U);
        }
    }

    std::mt19937_64 random_;
    std::size_t unit_;
    std::size_t room_;  // bytes that the pool may have
    Model model_;
    Rig rig_;
    std::size_t others_;        // the rest of the device, in other hands
    std::string breaks_;        // what is broken in this step
    bool slack_ = false;        // something broke since the last sleep that worked: memory may still be held
    std::uint64_t faults_ = 0;  // calls that were made to fail
    bool handles_may_stay_ = false;
    std::size_t mapped_ = 0;  // by the model, after the last step
};

class ModelTest : public ::testing::TestWithParam<Kind> {};
INSTANTIATE_TEST_SUITE_P(On, ModelTest, ::testing::Values(on_host, on_cuda, on_cuda_ring, on_acl),
                         ::testing::PrintToStringParamName());

TEST_P(ModelTest, AnySequenceOfRequestsDoesWhatTheModelSays) {
    const std::uint64_t seed = from_environment("DORMOUSE_SEED", std::random_device{}());
    const bool host = GetParam().driver == std::string("host");  // its pages of 2 MiB take longer
    const std::uint64_t steps = from_environment("DORMOUSE_MODEL_STEPS", host ? few : 4 * few);
    std::printf("DORMOUSE_SEED=%llu DORMOUSE_MODEL_STEPS=%llu\n", static_cast<unsigned long long>(seed),
                static_cast<unsigned long long>(steps));
    std::fflush(stdout);
    Player player(GetParam(), seed);
    player.play(steps);
    std::printf(
        "%llu transitions, %llu faults, %llu refusals, %llu stagings, %llu bytes pulled, %llu sleeps in grains\n",
        static_cast<unsigned long long>(player.transitions), static_cast<unsigned long long>(player.faults),
        static_cast<unsigned long long>(player.refusals), static_cast<unsigned long long>(player.stagings),
        static_cast<unsigned long long>(player.pulled), static_cast<unsigned long long>(player.in_grains));
}

}  // namespace
}  // namespace dormouse
