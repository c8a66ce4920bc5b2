#include "dormouse/error.hpp"

#include <array>
#include <cstdio>

namespace dormouse {

error no_thread(std::string_view what, const std::system_error& cause) {
    return error("no thread for " + std::string{what} + " could be started (" + cause.what() +
                 "): raise the limit on threads of this process or of its container (RLIMIT_NPROC, pids.max)");
}

std::string readable(std::size_t bytes) {
    constexpr std::array units{"B", "KiB", "MiB", "GiB", "TiB"};
    double value = static_cast<double>(bytes);
    std::size_t unit = 0;
    while (value >= 1024 && unit + 1 < units.size()) {
        value /= 1024;
        ++unit;
    }
    std::array<char, 32> text{};
    std::snprintf(text.data(), text.size(), unit == 0 ? "%.0f %s" : "%.2f %s", value, units[unit]);
    return text.data();
}

namespace {

std::string shortage(std::string_view where, std::size_t needed, std::size_t available, std::string_view what) {
    std::string text{what};
    text += ": needs " + readable(needed) + " of " + std::string{where} + ", " + readable(available) + " can be had";
    if (needed > available) {
        text += " (" + readable(needed - available) + " missing)";
    }
    return text;
}

}  // namespace

out_of_memory::out_of_memory(std::size_t needed_bytes, std::size_t available_bytes, std::string_view what)
    : error(shortage("device memory", needed_bytes, available_bytes, what)),
      needed(needed_bytes),
      available(available_bytes) {}

host_out_of_memory::host_out_of_memory(std::size_t needed_bytes, std::size_t available_bytes, std::string_view what)
    : error(shortage("host memory", needed_bytes, available_bytes, what)),
      needed(needed_bytes),
      available(available_bytes) {}

driver_error::driver_error(std::string_view failed_call, int answered, std::string_view text)
    : error(std::string{failed_call} + " failed with code " + std::to_string(answered) + ": " + std::string{text}),
      call(failed_call),
      code(answered) {}

}  // namespace dormouse
