// Bars: what heed promises on this machine, and what it does.
#pragma once

#include <string>
#include <vector>

namespace bench {

class bars_table {
public:
    enum class wanted { at_least, at_most };

    /// NaN, which is what lanes with a wrong result measure, meets no bar.
    void add(std::string what, double bar, double aim, double measured, wanted direction, std::string note = "") {
        entries_.push_back({std::move(what), bar, aim, measured, direction, std::move(note)});
    }
    void add(std::string what, double bar, double measured, wanted direction) {
        add(std::move(what), bar, bar, measured, direction);
    }
    /// 0 if every bar is met, 1 if not.
    int print() const;

private:
    struct entry {
        std::string what;
        double bar, aim, measured;
        wanted direction;
        std::string note;

        bool meets(double limit) const { return direction == wanted::at_least ? measured >= limit : measured <= limit; }
    };
    std::vector<entry> entries_;
};
using wanted = bars_table::wanted;

/// Bars that are measured together.
struct bar_group {
    const char* name;
    void (*measure)(bars_table&);
};

}  // namespace bench
