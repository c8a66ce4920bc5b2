#include "acl_api.hpp"

#include "dormouse/error.hpp"

namespace dormouse::acl {

Api::Api(const std::string& library) : library_(library) {
    library_.load_optional(recent_error_message_, "aclGetRecentErrMsg");
}

void Api::fail(const char* call, Error code) const {
    const char* words = recent_error_message_ == nullptr ? nullptr : recent_error_message_();
    throw driver_error(call, code, words == nullptr ? "AscendCL gives no reason" : words);
}

void Api::fail_room(std::size_t needed, const char* call, Error code) const {
    if (code != memory_allocation) fail(call, code);
    std::size_t free = 0;
    std::size_t total = 0;
    if (memory_info(hbm_memory, &free, &total) != success) free = 0;
    throw out_of_memory(needed, free, call);
}

}  // namespace dormouse::acl
