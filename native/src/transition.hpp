// How tags move: what sleep and wake do with the segments of a Table::Move. Effects only; which tag goes where was
// decided before (tag.hpp), and the move is committed or undone by the caller's scope.
#pragma once

#include "dormouse/pool.hpp"
#include "dormouse/stopwatch.hpp"
#include "dormouse/table.hpp"
#include "strays.hpp"

namespace dormouse {

struct Parts {
    Driver& driver;
    DeviceMemory& memory;
    BackupStore& store;
    const PoolOptions& options;
    Strays& strays;
    Stream stream;  // of digests
};

// What a transition did, for the books; filled in as it goes, so that a failed one can be counted too.
struct Account {
    std::size_t copied_bytes = 0;
    std::size_t pulled_bytes = 0;
    std::size_t clean_bytes = 0;
    std::size_t mismatched_bytes = 0;
    Counters counters;
};

// Moves to offloaded or discarded. Throws with the move uncommitted (then all is as before) or committed (then it is
// asleep, and some device memory could not be given back).
void put_to_sleep(const Parts& parts, Table::Move& move, Stopwatch& watch, Account& account);

// Throws what a sleep says when memory could not be given back; nothing when all was.
void report_leftover(const Segment::Leftover& leftover);

// Moves to resident; throws with the move uncommitted, everything asleep and every backup intact.
void bring_back(const Parts& parts, Table::Move& move, Stopwatch& watch, Account& account);

}  // namespace dormouse
