// A stream of a driver, for as long as the object lives.
#pragma once

#include "dormouse/driver.hpp"

namespace dormouse {

class OwnedStream {
   public:
    OwnedStream(Driver& driver, Priority priority) : driver_(driver), stream_(driver.create_stream(priority)) {}
    ~OwnedStream() { driver_.destroy_stream(stream_); }
    OwnedStream(const OwnedStream&) = delete;
    OwnedStream& operator=(const OwnedStream&) = delete;

    Stream get() const noexcept { return stream_; }

   private:
    Driver& driver_;
    Stream stream_;
};

}  // namespace dormouse
