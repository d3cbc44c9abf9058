#include "problem.hpp"

namespace bench {
namespace {

template <class S>
prepared prepare(const convolution_problem& p) {
    const auto x = operands_of<S>(p);
    const auto to = std::make_shared<convolution_output<S>>(p);
    const auto filter = std::make_shared<convolution_filter<S>>(x->h, filter_options{.longest = p.N});
    const auto pool = std::make_shared<threads>(p.threads);
    std::size_t bytes = 0;
    convolution(x->x, *filter, to->y, scratch_size(*pool, bytes));
    const auto scratch = std::make_shared<arena>(bytes);
    return judged(p, *x, *to, [=] { convolution(x->x, *filter, to->y, on(*pool, *scratch)); });
}

}  // namespace

convolver heed_convolver(const std::string& dtype) {
    return {dtype, "heed", dtype == "f64" ? prepare<double> : prepare<float>};
}

}  // namespace bench
