#include "bars.hpp"

#include <cstdio>

namespace bench {

int bars_table::print() const {
    int missed = 0;
    std::printf("\n| what | bar | aim | measured | |\n|---|---|---|---|---|\n");
    for (const entry& e : entries_) {
        missed += !e.meets(e.bar);
        const char* sign = e.direction == wanted::at_least ? ">=" : "<=";
        const char* verdict = e.meets(e.aim) ? "aim met" : e.meets(e.bar) ? "met" : "MISSED";
        std::printf("| %s | %s %.4g | %.4g | %.3g | %s%s%s |\n", e.what.c_str(), sign, e.bar, e.aim, e.measured,
                    verdict, e.note.empty() ? "" : "; ", e.note.c_str());
    }
    return missed ? 1 : 0;
}

}  // namespace bench
