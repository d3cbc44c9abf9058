// heed_test: LABELS sanitize
// Keys by channel in a file: the choices of an index in memory, through appends, truncates, closing and kills.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <heed/ops/mapped_channel_keys.hpp>
#include <heed/ops/sparq.hpp>
#include <thread>

#include "compare.hpp"
#include "random.hpp"
#include "refuses.hpp"
#include "scratch_folder.hpp"
#include "token_rows.hpp"

using namespace test;

namespace {

constexpr cache_shape shape{1, 2, 6, 5};
constexpr index_t H = 4, block = 1024;
using cache_type = mapped_cache<float>;
using index_type = mapped_channel_keys<bf16>;

/// Tokens that differ by the names from `first` on.
void append(cache_type& cache, std::uint64_t first, index_t n) {
    std::vector<std::uint64_t> names;
    for (index_t i = 0; i < n; ++i) names.push_back(first + static_cast<std::uint64_t>(i));
    cache.append(token_rows<float>(names, side::key, shape.B, shape.G, shape.D),
                 token_rows<float>(names, side::value, shape.B, shape.G, shape.E));
}

/// The index gives the bits of one in memory that reads the cache anew.
template <class Index>
void expect_as_anew(const cache_type& cache, Index& index, std::uint64_t seed) {
    const auto q = normal<float>({shape.B, H, 1, shape.D}, seed);
    tensor<float> o({shape.B, H, 1, shape.E}), want(o);
    channel_keys<bf16> anew;
    const sparq rule(2, 40, 3);
    const auto got = sparq_attention(q, cache, index, o, rule), told = sparq_attention(q, cache, anew, want, rule);
    ASSERT_TRUE(same_values(o, want));
    ASSERT_EQ(got.missed, told.missed);
    for (index_t g = 0; g < shape.G; ++g)
        for (index_t e = 0; e < shape.E; ++e) ASSERT_EQ(index.of(0, g).mean(e), anew.of(0, g).mean(e));
}

TEST(mapped_channel_keys, any_history_gives_the_choices_of_memory) {
    const scratch_folder folder;
    auto cache = cache_type::create(folder / "cache", shape, 512);
    auto index = index_type::create(folder / "index", shape, 1);
    const counter_random r(1);
    std::uint64_t named = 0, draws = 0;
    for (std::uint64_t round = 0; round < 120 && !HasFatalFailure(); ++round) {
        const bool far = r.uniform(draws++) < 0.3;
        const index_t n = r.integer(draws++, 0, far ? 2500 : 60);
        if (r.uniform(draws++) < (cache.size() > 6000 ? 0.8 : 0.3) && index.batch() > 0) {
            index.follow(cache);
            cache.truncate(std::min(n, cache.size())), index.truncate(std::min(n, index.keys(0, 0)));
        } else {
            append(cache, named, n);
            named += static_cast<std::uint64_t>(n);
            if (r.uniform(draws++) < 0.7) index.follow(cache);
        }
        if (r.uniform(draws++) < 0.2) {
            index = index_type::create(folder / "other", shape);  // closes it
            std::filesystem::remove(folder / "other");
            index = index_type::open(folder / "index", cache);
            EXPECT_EQ(index.keys(0, 1), index.stored());
        }
        expect_as_anew(cache, index, round);
        index.follow(cache);
        EXPECT_EQ(index.stored(), cache.size() / block * block);
        EXPECT_LE(index.bytes(), shape.G * (block * shape.D * 2 + (index.stored() / block + 2) * shape.E * 8));
    }
    EXPECT_GT(named, 10000u);
}

/// A child appends and truncates both until it is killed; what is opened then knows the cache, whatever that holds.
TEST(mapped_channel_keys, a_kill_leaves_an_index_of_its_cache) {
    const scratch_folder folder;
    cache_type::create(folder / "cache", shape, 512);
    index_type::create(folder / "index", shape, 2);
    const counter_random r(2);
    index_t most = 0;
    for (std::uint64_t round = 0; round < 40 && !HasFatalFailure(); ++round) {
        const pid_t child = ::fork();
        ASSERT_GE(child, 0);
        if (child == 0) {
            auto cache = cache_type::open(folder / "cache");
            auto index = index_type::open(folder / "index", cache);
            for (std::uint64_t i = 0;; ++i) {
                append(cache, (round << 32) + (i << 12), r.integer(i, 0, 700));
                index.follow(cache);
                const index_t n = std::min(cache.size(), cache.size() > 8000 ? 7000 : r.integer(i, 0, 300));
                cache.truncate(n);
                index.truncate(n);
            }
        }
        std::this_thread::sleep_for(std::chrono::microseconds(r.integer(round, 0, 20000)));
        ::kill(child, SIGKILL);
        int status = 0;
        ASSERT_EQ(::waitpid(child, &status, 0), child);
        ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << "the child ended by itself";
        const auto cache = cache_type::open(folder / "cache");
        auto index = index_type::open(folder / "index", cache);
        EXPECT_LE(index.stored(), cache.size());
        most = std::max(most, index.stored());
        expect_as_anew(cache, index, round);
    }
    EXPECT_GT(most, 2 * block);
}

TEST(mapped_channel_keys, what_is_not_its_file_is_refused) {
    const scratch_folder folder;
    auto cache = cache_type::create(folder / "cache", shape), other = cache_type::create(folder / "other", shape);
    append(cache, 0, 3000), append(other, 7, 3000);
    index_type::create(folder / "index", shape).follow(cache);
    refuses<argument_error>([&] { index_type::open(folder / "index", other); },
                            "mapped_channel_keys: key 2047 of head (0, 0) is not the one the file was made of");
    auto wide = cache_type::create(folder / "wide", {1, 2, 7, 5});
    refuses<shape_error>([&] { index_type::open(folder / "index", wide); }, "has D 6144, not 7168");
    refuses<argument_error>([&] { mapped_channel_keys<float>::open(folder / "index", cache); },
                            "holds keys of bf16 and values of double, not float and double");
    refuses<argument_error>([&] { index_type::create(folder / "index", shape); }, "File exists");
    other.truncate(2500);
    EXPECT_EQ(index_type::open(folder / "index", other).stored(), 0);  // nothing of it is left to compare
    auto index = index_type::open(folder / "index", cache);
    EXPECT_EQ(index.stored(), 0);
    index.follow(cache);
    EXPECT_EQ(index.stored(), 2048);
    index.clear();
    EXPECT_EQ(index.stored(), 0);
    expect_as_anew(cache, index, 1);
}

}  // namespace
