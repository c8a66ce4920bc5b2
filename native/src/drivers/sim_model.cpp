#include "drivers/sim_model.hpp"

#include <algorithm>

namespace dormouse {

namespace {

// On the line through the two points around x; beyond the last one, on the last line.
template <std::size_t n>
double on_lines(const std::array<double, n>& xs, const std::array<double, n>& ys, double x) {
    std::size_t i = 1;
    while (i + 1 < n && x > xs[i]) {
        ++i;
    }
    return ys[i - 1] + (ys[i] - ys[i - 1]) * (x - xs[i - 1]) / (xs[i] - xs[i - 1]);
}

}  // namespace

double sim_call_seconds(const SimModel::PerChunk& microseconds, std::size_t bytes) {
    constexpr std::array<double, 4> sizes = {2, 32, 256, 1024};
    const double mib = static_cast<double>(bytes) / (1024.0 * 1024.0);
    return on_lines(sizes, microseconds, std::max(mib, sizes.front())) * 1e-6;
}

double sim_host_rate(const std::array<double, 3>& rates, unsigned threads) {
    constexpr std::array<double, 3> counts = {1, 8, 16};
    return on_lines(counts, rates, std::clamp(static_cast<double>(threads), counts.front(), counts.back()));
}

}  // namespace dormouse
