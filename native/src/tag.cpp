#include "dormouse/tag.hpp"

#include <algorithm>

#include "dormouse/error.hpp"

namespace dormouse {

const char* to_string(TagState state) noexcept {
    switch (state) {
        case TagState::resident:
            return "resident";
        case TagState::offloaded:
            return "offloaded";
        case TagState::discarded:
            return "discarded";
        case TagState::in_transition:
            return "in_transition";
    }
    return "unknown";
}

TagState next_state(const std::string& tag, TagState from, TagState wanted) {
    if (from == TagState::in_transition || wanted == TagState::in_transition) {
        throw illegal_state("tag '" + tag + "' is in transition: wait for the call that moves it");
    }
    if (from == TagState::discarded && wanted == TagState::offloaded) {
        throw illegal_state("tag '" + tag +
                            "' is discarded, so it has no content to offload: wake and reload it first");
    }
    return wanted;
}

TagState wanted_at_level(const std::string& tag, int level) {
    if (level != 1 && level != 2) {
        throw invalid_argument("sleep level " + std::to_string(level) + " is unknown: it is 1 or 2");
    }
    const bool remade = tag == "kv_cache" || tag == "workspace";
    const bool irreplaceable = tag == "runtime" || tag == "cudagraph";
    if (remade || (level == 2 && !irreplaceable)) {
        return TagState::discarded;
    }
    return TagState::offloaded;
}

std::size_t kept_up_to(const std::string& tag, std::size_t limit) noexcept {
    // torch serves tensors up to 1 MiB from blocks of 2 MiB: small buffers are there, matrices are not.
    constexpr std::size_t smallest_block = 2u << 20;
    if (tag == "kv_cache") {
        return limit;
    }
    return tag == "weights" ? std::min(limit, smallest_block) : 0;
}

}  // namespace dormouse
