// Masks, scores, sinks and probes over quantised caches, against the definition over the numbers they hold.
#include "cache_policies.hpp"

using namespace test;

namespace {

constexpr index_t G = 2, D = 40, E = 36;

template <class K, class V>
void expect_policies_of(const K& keys, const V& values, const std::string& name) {
    for (const hadamard turned : {hadamard{}, hadamard{.keys = true, .values = true}}) {
        quantised_cache<K, V> cache({2, G, D, E}, keys, values, turned);
        cache.append(normal<float>({2, G, 50, D}, 1), normal<float>({2, G, 50, E}, 2));
        cache.append(1, normal<float>({1, G, 37, D}, 3), normal<float>({1, G, 37, E}, 4));
        expect_policies(cache, name + (turned.keys ? ", transformed" : ""));
    }
}

TEST(policies, over_bytes_by_token) { expect_policies_of(int8_per_token{}, int8_per_token{}, "bytes by token"); }
TEST(policies, over_channels_and_groups) {
    expect_policies_of(int8_per_channel{16}, int4_per_group<32>{}, "channels and groups");
}

}  // namespace
