// Bytes of a token, for each of D numbers: 1, or 1/2 in four bits, and the factors that are shared.
#include "decoder.hpp"

namespace bench {
namespace {

constexpr double numbers = decode_step::G * decode_step::D, tight = 0.05, loose = 0.5;  // of 127 levels, of 7

template <class K, class V>
prepared prepare(const decode_step& s, double bytes_per_number, double error, hadamard turned = {}) {
    const auto x = prompt_of(s.M);
    quantised_cache<K, V> cache({1, decode_step::G, decode_step::D, decode_step::D}, {}, {}, turned);
    cache.append(x->k, x->v);
    return over(s, x, std::move(cache), {s.M, numbers * bytes_per_number, error});
}

}  // namespace

std::vector<decoder> quantised_decoders() {
    constexpr double token = 4.0 / decode_step::D, block = 4.0 / 64, group = 4.0 / 32;
    using per_token = int8_per_token;
    using four_bits = int4_per_group<32>;
    return {
        {"contiguous", "int8", "heed",
         [](const decode_step& s) { return prepare<per_token, per_token>(s, 2 * (1 + token), tight); }},
        {"integer", "int8", "heed",
         [](const decode_step& s) { return prepare<int8_integer, int8_integer>(s, 2 * (1 + token), tight); }},
        {"per_channel", "int8", "heed",
         [](const decode_step& s) { return prepare<int8_per_channel, per_token>(s, 2 + block + token, tight); }},
        {"contiguous", "int4", "heed",
         [](const decode_step& s) { return prepare<four_bits, four_bits>(s, 2 * (0.5 + group), loose); }},
        {"hadamard", "int4", "heed",
         [](const decode_step& s) {
             return prepare<four_bits, four_bits>(s, 2 * (0.5 + group), loose, {true, true});
         }},
    };
}

}  // namespace bench
