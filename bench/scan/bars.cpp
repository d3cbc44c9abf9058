// The bars of scans: exponentials bound the selective scan, memory the diagonal ones.
#include "../support/families.hpp"
#include "../support/lanes.hpp"
#include "scanner.hpp"

namespace bench {
namespace {

void selective(bars_table& table) {
    const scan_shape s{1024, 2048, 16, 1};
    const auto lanes = compare({measured("exponentials", "f32", s), measured("selective", "f32", s)}, 2, 9);
    const double parts = static_cast<double>(s.N) * static_cast<double>(s.C * s.S);
    char share[64];
    std::snprintf(share, sizeof share, "%.2f of the rate of exponentials", time_ratio(lanes[0], lanes[1]));
    table.add("selective scan, 2048 channels of 16 states, ns a token, channel and state", 0.45, 0.15,
              lanes[1].seconds() / parts * 1e9, wanted::at_most, share);
}

void diagonal(bars_table& table) {
    for (const char* op : {"hgrn", "rg_lru", "ema"}) {
        const auto lanes = compare({measured(op, "f32", {8192, 2048, 1, 1})}, 2, 9, bound::memory);
        table.add(std::string("scan, of the read stream, ") + op + ", 2048 channels x 8192 tokens", 0.6,
                  lanes[0].of_bound(), wanted::at_least);
    }
}

void threads_of_scans(bars_table& table) {
    const auto with = [](int n) { return measured("selective", "f32", {1024, 2048, 16, n}); };
    const auto lanes = compare({with(1), with(2)}, 2, 9);
    table.add("selective scan, two threads over one", 1.8, time_ratio(lanes[0], lanes[1]), wanted::at_least);
}

}  // namespace

std::vector<bar_group> scan_bars() {
    return {{"selective", selective}, {"diagonal", diagonal}, {"threads", threads_of_scans}};
}

}  // namespace bench
