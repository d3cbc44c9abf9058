#include "scanner.hpp"

#include <stdexcept>

namespace bench {

std::vector<scanner> selective_scanners(), diagonal_scanners();

const std::vector<scanner>& scanners() {
    static const std::vector<scanner> all = [] {
        std::vector<scanner> list;
        for (const auto& some : {selective_scanners, diagonal_scanners})
            for (scanner& s : some()) list.push_back(std::move(s));
        return list;
    }();
    return all;
}

measurement measured(const scanner& by, const scan_shape& s) {
    return {"scan/" + by.op + "/" + by.dtype + "/" + s.name() + "/" + by.by, s.threads,
            [prepare = by.prepare, s] { return prepare(s); }};
}

measurement measured(const std::string& op, const std::string& dtype, const scan_shape& s, const std::string& by) {
    for (const scanner& x : scanners())
        if (x.op == op && x.dtype == dtype && x.by == by) return measured(x, s);
    throw std::out_of_range("no scanner " + op + "/" + dtype + " by " + by);
}

}  // namespace bench
