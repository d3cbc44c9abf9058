// A decoder: a cache under heed's attention, or a rival. One short file for each kind of cache.
#pragma once

#include "step.hpp"

namespace bench {

struct decoder {
    std::string cache, dtype, by;
    std::function<prepared(const decode_step&)> prepare;
};
const std::vector<decoder>& decoders();

/// decode/<cache>/<dtype>/<step>/<by>
measurement measured(const decoder& by, const decode_step& s);
/// The same by name; std::out_of_range where there is none.
measurement measured(const std::string& cache, const std::string& dtype, const decode_step& s,
                     const std::string& by = "heed");

/// A stream that has seen s.M tokens, which repeat the first M, with 4 sinks and a window; float.
measurement stream_of(index_t M, index_t window, const decode_step& s);

/// Bounds of the error: rounding of sums; of keys, whose logits reach a few tens, and of values to S.
template <class S>
constexpr double tolerance = std::is_same_v<S, float> ? 2e-5
                             : std::is_same_v<S, f16> ? 4e-3
                                                      : 3e-2;
/// So many tokens as they are, in S.
template <class S>
promise plain(index_t keys) {
    return {keys, 2.0 * decode_step::G * decode_step::D * sizeof(S), tolerance<S>};
}

/// heed's attention over a source.
template <class Source, class... Policies>
job attend(const decode_step& s, std::shared_ptr<const prompt> x, std::shared_ptr<Source> source,
           std::shared_ptr<answer> to, const Policies&... policies) {
    const auto pool = std::make_shared<threads>(s.threads);
    const auto scratch = std::make_shared<arena>(attention_scratch(x->q, *source, to->o(), on{*pool}, policies...));
    return [=] { attention(x->q, *source, to->o(), on{*pool, *scratch}, policies...); };
}

/// A step over a cache that holds what there is to read.
template <class Source>
prepared over(const decode_step& s, std::shared_ptr<const prompt> x, Source source, const promise& given) {
    const auto to = std::make_shared<answer>();
    return judged(*x, *to, attend(s, x, std::make_shared<Source>(std::move(source)), to), given);
}

}  // namespace bench
