// What a driver says that has no processors to pull with.
#include "dormouse/driver.hpp"

#include "dormouse/error.hpp"

namespace dormouse {

void Driver::pull(Address, const void*, std::size_t, Stream) {
    throw illegal_state("driver '" + std::string{name()} + "' pulls nothing");
}

bool Driver::idle(Stream) {
    throw illegal_state("driver '" + std::string{name()} + "' can't tell whether a stream is idle");
}

}  // namespace dormouse
