#include "decoder.hpp"

#include <stdexcept>

namespace bench {

std::vector<decoder> contiguous_decoders(), paged_decoders(), stream_decoders(), mapped_decoders(),
    quantised_decoders(), retrieval_decoders(), mass_decoders(), beam_decoders(), rival_decoders();

const std::vector<decoder>& decoders() {
    static const std::vector<decoder> all = [] {
        std::vector<decoder> list;
        for (const auto& some : {contiguous_decoders, quantised_decoders, paged_decoders, stream_decoders,
                                 mapped_decoders, retrieval_decoders, mass_decoders, beam_decoders, rival_decoders})
            for (decoder& d : some()) list.push_back(std::move(d));
        return list;
    }();
    return all;
}

measurement measured(const decoder& by, const decode_step& s) {
    return {"decode/" + by.cache + "/" + by.dtype + "/" + s.name() + "/" + by.by, s.threads,
            [prepare = by.prepare, s] { return prepare(s); }};
}

measurement measured(const std::string& cache, const std::string& dtype, const decode_step& s, const std::string& by) {
    for (const decoder& d : decoders())
        if (d.cache == cache && d.dtype == dtype && d.by == by) return measured(d, s);
    throw std::out_of_range("no decoder " + cache + "/" + dtype + " by " + by);
}

}  // namespace bench
