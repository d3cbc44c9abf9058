// What is measured of scans: every operator by length, rivals where they are not too slow.
#include "../support/families.hpp"
#include "scanner.hpp"

namespace bench {

std::vector<measurement> layer_rows(const std::vector<index_t>& lengths, int workers);

std::vector<measurement> scan_rows(length extent) {
    std::vector<measurement> rows;
    const bool whole = extent == length::whole;
    const std::vector<index_t> lengths =
        whole ? std::vector<index_t>{256, 1024, 4096, 16384} : std::vector<index_t>{256, 1024, 4096};
    for (index_t N : lengths)
        for (int threads : {1, 2})
            for (const scanner& s : scanners()) {
                if (s.op == "selective.segments") continue;  // for what is narrow
                const bool many = s.op == "selective" || s.op == "exponentials";
                if (s.by == "naive" && many && N > 1024) continue;
                // A short suite has one length of all, and of the selective scan a curve.
                if (!whole && N != 1024 && (s.op != "selective" || s.by != "heed" || threads > 1)) continue;
                rows.push_back(measured(s, {N, 2048, many ? 16 : 1, threads}));
            }
    for (const char* op : {"selective", "selective.segments"})
        for (int threads : {1, 2}) rows.push_back(measured(op, "f32", {65536, 16, 16, threads}));
    const auto layers = [&](const std::vector<index_t>& of, int threads) {
        for (measurement& m : layer_rows(of, threads)) rows.push_back(std::move(m));
    };
    layers(whole ? std::vector<index_t>{1024, 4096, 16384} : std::vector<index_t>{1024, 4096}, 1);
    if (whole) layers({4096}, 2);
    return rows;
}

}  // namespace bench
