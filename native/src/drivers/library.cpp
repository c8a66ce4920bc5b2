#include "library.hpp"

#include <dlfcn.h>

#include <utility>

#include "dormouse/error.hpp"

namespace dormouse {
namespace {

// What the loader says about its last failure on this thread.
std::string loader_words() {
    const char* words = dlerror();
    return words == nullptr ? "the loader gave no reason" : words;
}

}  // namespace

Library::Library(std::string path) : path_(std::move(path)) {
    // NODELETE: see the header. LOCAL: the symbols of a library that a test names must not reach anybody else.
    handle_ = dlopen(path_.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (handle_ == nullptr) throw driver_error("dlopen", not_loaded, loader_words());
}

Library::~Library() {
    dlclose(handle_);
}

void* Library::find(const char* name) const noexcept {
    return dlsym(handle_, name);
}

void* Library::require(const char* name) const {
    void* symbol = find(name);
    if (symbol == nullptr) throw driver_error(name, not_loaded, path_ + " does not have it: " + loader_words());
    return symbol;
}

}  // namespace dormouse
