// A measurement: something to time, and what a call of it does. Families make them; the table, the suite and the bars
// know nothing else.
#pragma once

#include <cstddef>
#include <exception>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace bench {

using job = std::function<void()>;

/// A measurement made ready: operands are made, the job has run once and its result was compared with the definition.
struct prepared {
    job run;
    std::string wrong = {};                                    // why it must not be timed; empty if the result is right
    double flops = 0, bytes = 0;                               // of a call: useful arithmetic; operands, each once
    bool in_double = false;                                    // whose peak the arithmetic is compared with
    std::vector<std::pair<std::string, double>> columns = {};  // what else is worth knowing: area, error, ...
    std::span<const std::byte> output = {};                    // what a call writes

    /// 0 where there is no such column.
    double column(const std::string& name) const {
        for (const auto& [key, value] : columns)
            if (key == name) return value;
        return 0;
    }
};

struct measurement {
    std::string name;  // family/.../threads:T/contestant
    int threads = 1;
    std::function<prepared()> prepare;

    /// Prepares; an exception is a wrong result.
    prepared ready() const {
        try {
            return prepare();
        } catch (const std::exception& e) {
            prepared failed;
            failed.wrong = std::string("wrong: ") + e.what();
            return failed;
        }
    }
};

/// What one call says about the machine.
struct rates {
    double seconds = 0, flops = 0, of_peak = 0, bytes = 0, of_bandwidth = 0;
};
rates rates_of(const prepared& what, int threads, double seconds);

struct named_operands {
    std::string name;
    std::shared_ptr<void> what;
};
inline named_operands kept_operands;

/// Operands that measurements share, by name: kept until others are asked for, since rivals on the same ones come in a
/// row. make() returns a T; the same name means the same T.
template <class Make>
auto at_hand(const std::string& name, const Make& make) {
    using T = decltype(make());
    if (name != kept_operands.name) {
        kept_operands = {};  // before the next ones take their memory
        kept_operands = {name, std::make_shared<T>(make())};
    }
    return std::static_pointer_cast<T>(kept_operands.what);
}

}  // namespace bench
