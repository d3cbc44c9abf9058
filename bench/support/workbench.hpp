// Operands and jobs of the problem at hand, checked before anyone times them.
#pragma once

#include <memory>
#include <string>

#include "check.hpp"
#include "suite.hpp"

namespace bench {

/// A contestant ready on a problem, or what is wrong with it.
struct checked_job {
    job run;
    std::string wrong;
    double area = 0;
};

/// Runs the contestant once on an output full of NaN and compares with the definition.
inline checked_job check_in(const suite_row& row, operands& x) {
    checked_job out;
    out.area = row.what.area();
    try {
        out.run = row.by->prepare(row.what, x);
        std::memset(x.o.as<char>().data, 0xff, x.o.bytes());
        out.run();
        out.wrong = difference_from_definition(row.what, x);
    } catch (const std::exception& e) {
        out.wrong = std::string("wrong: ") + e.what();
    }
    return out;
}

/// Keeps the operands of the last problem and the job of the last row: repetitions and rivals come in a row.
class workbench {
public:
    const checked_job& ready(const suite_row& row) {
        if (row.name() == row_) return job_;
        job_ = {};
        if (row.what.name() != problem_) {
            operands_.reset();
            operands_ = std::make_unique<operands>(row.what);
            problem_ = row.what.name();
        }
        job_ = check_in(row, *operands_);
        row_ = row.name();
        return job_;
    }

private:
    std::string problem_, row_;
    std::unique_ptr<operands> operands_;
    checked_job job_;
};

}  // namespace bench
