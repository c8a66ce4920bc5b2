// Pinned memory to a device by two ways: its copy engine, and its processors, which pull (Driver::pull).
//
// At rest the engine alone is best: 51.7 GiB/s on an H200, where pulls reach 46 and both together no more than the
// engine. While the device clears memory that was released (2 ms per GiB) the engine takes turns with that, a
// millisecond each, and pulls go on as fast as ever. Nobody can ask a device whether it clears. But two small copies
// one after the other tell: at rest the second is done at once, and on one that clears it waits for a turn. (The first
// may come when it is the copies' turn, and what is queued behind a copy comes in the same turn.) At rest everything
// goes to the engine, on one stream. Else both ways share what waits for a round, a few batches each, whoever has room;
// then it is asked again. How fast the engine is beside pulls would tell nothing: they share the link.
//
// There is no thread: whoever adds, hands over or finishes moves it on.
#pragma once

#include <array>
#include <cstddef>
#include <deque>
#include <span>

#include "dormouse/backup.hpp"
#include "stores/ring.hpp"
#include "stores/shelf.hpp"

namespace dormouse {

class SharedCopy {
   public:
    // `driver` can_pull(). `rest` takes everything where the device is at rest; who made it waits for it.
    SharedCopy(Driver& driver, Shelf<CopyStream>& streams, CopyStream& rest, const PullPace& pace)
        : clock_(driver.clock()), streams_(streams), rest_(rest), pace_(pace) {}
    // Waits for what is under way.
    ~SharedCopy() { drop(); }
    SharedCopy(const SharedCopy&) = delete;
    SharedCopy& operator=(const SharedCopy&) = delete;

    void add(const Part& part);
    // Returns when nothing waits any more.
    void hand_over();
    // Returns when all is done, or handed to `rest`.
    void finish();
    // Forgets what waits, and waits for what is under way.
    void drop() noexcept;

    std::size_t pulled_bytes() const noexcept { return pulled_; }

   private:
    enum class Device { unknown, at_rest, clearing };
    struct Batch {
        Shelf<CopyStream>::Borrowed stream;  // each has its own, so that each is known to be done
        bool under_way = false;
    };

    void advance();
    // Finds out what the device does, with the first of what waits.
    void ask();
    bool prompt();
    void share();
    void look();
    static bool idle(std::span<const Batch> batches) noexcept;
    void fill_engine();
    void fill_processors();
    // Takes what waits, up to `room` bytes, and has `copy` queue it on the batch's stream.
    template <class Copy>
    void load(Batch& batch, std::size_t room, const Copy& copy);
    // Has `wait` wait for each stream with something under way.
    template <class Wait>
    void settle_each(const Wait& wait);

    Clock& clock_;
    Shelf<CopyStream>& streams_;
    CopyStream& rest_;
    const PullPace pace_;

    Device device_ = Device::unknown;
    double begun_ = 0;    // when the round began
    bool whole_ = false;  // nothing more is added for now
    std::deque<Part> waiting_;
    std::size_t waiting_bytes_ = 0;
    std::array<Batch, 4> engine_;
    std::array<Batch, 2> processors_;  // two kernels at a time: more of them hold up who maps memory meanwhile
    std::size_t pulled_ = 0;
};

}  // namespace dormouse
