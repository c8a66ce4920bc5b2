#include "cuda_api.hpp"

#include "dormouse/error.hpp"

namespace dormouse::cuda {

std::string Api::words(Result code) const {
    // A library that does not know a code (a newer device's) leaves the pointer alone or sets it to null.
    const char* name = nullptr;
    const char* text = nullptr;
    if (error_name(code, &name) != success || name == nullptr) name = "an unknown error";
    if (error_string(code, &text) != success || text == nullptr) return name;
    return std::string(name) + ": " + text;
}

void Api::fail(const char* call, Result code) const {
    throw driver_error(call, code, words(code));
}

void Api::fail(const char* call, Result code, std::size_t needed) const {
    if (code != error_out_of_memory) fail(call, code);
    std::size_t free = 0;
    std::size_t total = 0;
    if (memory_info(&free, &total) != success) free = 0;
    throw out_of_memory(needed, free, std::string(call) + ", " + words(code));
}

}  // namespace dormouse::cuda
