#include "families.hpp"

#include <cstdio>
#include <set>

#include "reporter.hpp"

namespace bench {

std::vector<measurement> attention_rows(length), convolution_rows(length), decode_rows(length), recurrence_rows(length),
    scan_rows(length);
std::vector<bar_group> attention_bars(), convolution_bars(), decode_bars(), recurrence_bars(), scan_bars();

std::span<const family> families() {
    static const family all[] = {
        {"attention", attention_rows, attention_bars},
        {"convolution", convolution_rows, convolution_bars},
        {"decode", decode_rows, decode_bars},
        {"recurrence", recurrence_rows, recurrence_bars},
        {"scan", scan_rows, scan_bars},
    };
    return all;
}

std::vector<measurement> suite(length extent) {
    std::vector<measurement> all;
    std::set<std::string> names;
    for (const family& f : families())
        for (measurement& m : f.rows(extent))
            if (names.insert(m.name).second) all.push_back(std::move(m));  // two questions may ask for the same point
    return all;
}

int print_bars(std::string_view filter) {
    std::vector<bar_group> groups;
    for (const family& f : families())
        for (const bar_group& group : f.bars())
            if ((std::string(f.name) + "/" + group.name).find(filter) != std::string::npos) groups.push_back(group);
    if (groups.empty()) {
        std::printf("no bars have %s in their name\n", std::string(filter).c_str());
        return 2;
    }
    print_machine();
    std::printf("of_peak of attention, of_read of decoding and of diagonal scans: over the rate measured before and after each call\n");
    print_row_header();
    bars_table table;
    for (const bar_group& group : groups) group.measure(table);
    return table.print();
}

}  // namespace bench
