// A vendor's shared object and the functions in it, found at run time, so that building needs no vendor's kit.
//
// What is missing is said by name and in the loader's own words. The object stays loaded until the process ends:
// vendors' libraries start threads and leave exit handlers behind, and none of them promises to survive an unload.
#pragma once

#include <string>

namespace dormouse {

class Library {
   public:
    // `path` as dlopen takes it: a name is searched for, a path is opened. Throws driver_error("dlopen").
    explicit Library(std::string path);
    ~Library();
    Library(const Library&) = delete;
    Library& operator=(const Library&) = delete;

    // Sets `function` (a pointer to function) to the symbol of that name. Throws driver_error(`name`) if there is none.
    template <typename Function>
    void load(Function*& function, const char* name) const {
        function = reinterpret_cast<Function*>(require(name));
    }
    // The same, but a missing symbol gives nullptr.
    template <typename Function>
    void load_optional(Function*& function, const char* name) const noexcept {
        function = reinterpret_cast<Function*>(find(name));
    }

    const std::string& path() const noexcept { return path_; }

    // The code of the errors that come from the loader and not from a call.
    static constexpr int not_loaded = -1;

   private:
    void* find(const char* name) const noexcept;
    void* require(const char* name) const;

    std::string path_;
    void* handle_;
};

}  // namespace dormouse
