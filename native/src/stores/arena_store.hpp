// The store of raw backups in this process's own memory.
//
// One class for both kinds, because they differ per slot only in whether its blocks are to be pinned: "registered"
// pins all, "ring" none, and "auto" pins what each call of reserve() books if RLIMIT_MEMLOCK and the driver allow it.
// What can't be pinned after all goes through the ring as well, so a driver's refusal costs speed and nothing else.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>

#include "dormouse/backup.hpp"
#include "stores/room.hpp"
#include "stores/transfer.hpp"
#include "stores/worker.hpp"

namespace dormouse {

class ArenaStore final : public BackupStore {
   public:
    // `lockable` answers how many bytes may still be locked (limits.hpp; tests have their own).
    ArenaStore(Driver& driver, const StoreOptions& options, std::function<std::size_t()> lockable);

    std::vector<Slot> reserve(std::span<const std::size_t> sizes) override;
    void release(Slot slot) noexcept override;
    void drain() noexcept override;
    void prepare(Slot slot, std::stop_token stop = {}) override;
    std::uint64_t digest(Slot slot, std::size_t offset, std::size_t bytes) override;
    std::unique_ptr<Transfer> offload(Priority priority) override;
    std::unique_ptr<Transfer> restore() override;
    StoreStats stats() override;

   private:
    enum class Kind { registered, ring, automatic };
    static Kind kind_of(const std::string& name);

    void check_host_memory(std::size_t bytes);
    bool may_pin(std::size_t bytes);
    std::shared_ptr<Room> find(Slot slot);
    // Whether a restore may be pulled. The first question has the driver load what it needs.
    bool pulls() noexcept;
    // The sum of what `count` says of each block of each slot. Wants mutex_.
    std::size_t bytes_of(const std::function<std::size_t(const Block&)>& count) const;

    Driver& driver_;
    const Kind kind_;
    const std::function<std::size_t()> lockable_;
    const bool pull_;
    const PullPace pull_pace_;
    Ground ground_;
    Equipment equipment_;
    std::mutex mutex_;
    std::unordered_map<Slot, std::shared_ptr<Room>> rooms_;
    Slot last_ = no_slot;
    bool pins_ = false;   // what reserve() decided last
    std::string reason_;  // and why
    Worker reaper_;       // takes down the rooms of released slots
};

}  // namespace dormouse
