// The rules of driver.hpp, kept as books: which addresses are reserved, which physical memory exists and where it is
// mapped. The drivers whose device does not check for itself (host, sim) ask here first.
//
// A mapping keeps its memory: it is free again when neither handle nor mapping is left.
//
// Every breach is a driver_error with the call's name and an errno-like code, and changes nothing:
//   EINVAL  a size or address that is no multiple of the granularity, or a handle that nobody gave out
//   EBUSY   memory that is mapped already, addresses that are taken or still in use
//   EFAULT  addresses that are not reserved, not mapped, or (copies, digests) not allowed
// Not thread-safe: the driver holds its lock around a call.
#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "dormouse/driver.hpp"

namespace dormouse {

class Books {
   public:
    // `driver` stands before the call's name in errors.
    Books(std::string_view driver, std::size_t granularity, std::size_t capacity);

    // Sizes first, addresses after the system has found room.
    void check_size(std::string_view call, std::size_t bytes) const;
    void reserve(Address address, std::size_t bytes);
    // Exactly one reservation, with nothing mapped in it.
    void unreserve(Address address, std::size_t bytes);

    Physical create(std::size_t bytes);
    // Bytes that are free now: none while they are mapped.
    std::size_t release(Physical physical);

    // The checks are apart from the entries, so that a driver can do its work in between.
    void check_map(Address address, std::size_t bytes, Physical physical) const;
    void map(Address address, std::size_t bytes, Physical physical);
    // One or more neighbouring mappings, each whole.
    void check_allow(Address address, std::size_t bytes) const;
    // The sizes of these mappings.
    std::vector<std::size_t> allow(Address address, std::size_t bytes);
    // Exactly one mapping. Answers the bytes that are free now: none while their handle is held.
    void check_unmap(Address address, std::size_t bytes) const;
    std::size_t unmap(Address address, std::size_t bytes);

    // Bytes that a copy or digest may touch: mapped and allowed, through any number of neighbours.
    void check_access(std::string_view call, Address address, std::size_t bytes) const;

    std::size_t capacity() const { return capacity_; }
    std::size_t created() const { return created_; }
    const std::map<Address, std::size_t>& reservations() const { return reservations_; }

    // Throws the driver_error of a breach.
    [[noreturn]] void refuse(std::string_view call, int code, std::string_view why) const;

   private:
    struct Memory {
        std::size_t bytes = 0;
        bool held = true;  // by its handle
        bool mapped = false;
    };
    struct Mapping {
        std::size_t bytes = 0;
        Physical physical = 0;
        bool allowed = false;
    };

    // The memory of a handle that is held; throws where there is none.
    const Memory& held(std::string_view call, Physical physical) const;
    std::size_t drop_if_unused(Physical physical);
    void check_range(std::string_view call, Address address, std::size_t bytes) const;
    void check_whole_mappings(std::string_view call, Address address, std::size_t bytes) const;

    std::string driver_;
    std::size_t granularity_;
    std::size_t capacity_;
    std::size_t created_ = 0;
    Physical next_ = 1;
    std::map<Address, std::size_t> reservations_;
    std::map<Physical, Memory> physicals_;
    std::map<Address, Mapping> mappings_;
};

}  // namespace dormouse
