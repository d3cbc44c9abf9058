// heed_test: LABELS sanitize
// A mapped cache against a list of tokens: random operations and reopenings, malformed files, errors that change
// nothing.
#include <gtest/gtest.h>

#include <fstream>
#include <functional>
#include <heed/cache/mapped.hpp>
#include <numeric>
#include <optional>

#include "scratch_folder.hpp"
#include "token_rows.hpp"

using namespace test;

namespace {

using tokens = std::vector<std::uint64_t>;

static_assert(key_value_source<mapped_cache<float>> && key_value_source<mapped_cache<bf16, f16>>);
static_assert(!std::is_copy_constructible_v<mapped_cache<float>>);
static_assert(std::is_nothrow_move_constructible_v<mapped_cache<float>> &&
              std::is_nothrow_move_assignable_v<mapped_cache<float>>);

tokens numbered(index_t first, index_t n) {
    tokens out(static_cast<std::size_t>(n));
    std::iota(out.begin(), out.end(), static_cast<std::uint64_t>(first));
    return out;
}

template <class X, class Y, class Cache>
void append(Cache& cache, const tokens& more, const layout& l = {}) {
    const auto [B, G, D, E] = cache.shape();
    cache.append(token_rows<X>(more, side::key, B, G, D, l), token_rows<Y>(more, side::value, B, G, E, l));
}
template <class Cache>
void append(Cache& cache, const tokens& more) {
    append<float, float>(cache, more);
}

std::string message(const std::function<void()>& f) {
    try {
        f();
    } catch (const std::invalid_argument& e) {
        return e.what();
    }
    return "no error";
}

std::string bytes_of(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}
void write_bytes(const std::string& path, const std::string& bytes) { std::ofstream(path, std::ios::binary) << bytes; }

/// Random operations; what the cache holds is compared with the list after each.
template <class K, class V>
void random_operations(const cache_shape& shape, index_t segment, int operations, std::uint64_t seed) {
    using cache_type = mapped_cache<K, V>;
    const scratch_folder folder;
    const std::string path = folder / "cache";
    std::optional<cache_type> cache(cache_type::create(path, shape, segment));
    tokens model;
    std::uint64_t named = 0;
    index_t synced = 0;
    const counter_random r(seed);
    for (int i = 0; i < operations; ++i) {
        SCOPED_TRACE("operation " + std::to_string(i));
        const auto pick = [&](int which, index_t last) {
            return r.integer(static_cast<std::uint64_t>(4 * i + which), 0, last + 1);
        };
        const auto size = static_cast<index_t>(model.size());
        const auto drop = [&](index_t n) {
            const index_t left = static_cast<index_t>(model.size()) - n;
            cache->truncate(n);
            model.resize(static_cast<std::size_t>(left));
            synced = std::min(synced, left);
        };
        switch (pick(0, 24)) {
            case 0:
                drop(pick(1, size));
                break;
            case 1:
            case 2:
                drop(pick(1, std::min<index_t>(3, size)));
                break;
            case 3:
                cache->reserve(pick(1, size + 2 * segment));
                break;
            case 4:
                cache.reset();
                cache.emplace(cache_type::open(path, shape));
                break;
            case 5:
                *cache = cache_type(std::move(*cache));
                break;
            case 6:
                if (i % 3 == 0) cache->sync(), synced = size;  // waits for a disk
                break;
            default: {
                const index_t n = pick(1, 20) == 0 ? pick(2, 2 * segment + 3) : pick(2, 4);
                tokens more = numbered(static_cast<index_t>(named), n);
                named += static_cast<std::uint64_t>(n);
                append(*cache, more);
                model.insert(model.end(), more.begin(), more.end());
            }
        }
        if (cache->size() > 20 * segment) drop(cache->size() - 2);
        ASSERT_EQ(cache->size(), static_cast<index_t>(model.size()));
        ASSERT_EQ(cache->synced(), synced);
        ASSERT_TRUE(holds(*cache, model));
        ASSERT_EQ(cache->bytes(), static_cast<index_t>(std::filesystem::file_size(path)));
    }
    EXPECT_TRUE(holds(cache_type::open(path, mapped_access::read), model));
}

TEST(mapped, random_operations) {
    random_operations<float, float>({2, 3, 5, 4}, 7, 3000, 1);
    random_operations<bf16, f16>({1, 2, 17, 16}, 64, 600, 2);
    random_operations<double, bf16>({1, 1, 1, 3}, 1, 600, 3);
}

TEST(mapped, extents_of_zero) {
    for (const cache_shape shape : {cache_shape{0, 2, 3, 4}, {2, 0, 3, 4}, {1, 1, 0, 0}, {1, 1, 0, 4}, {1, 1, 3, 0}})
        random_operations<float, float>(shape, 5, 100, 4);
}

TEST(mapped, types_and_layouts) {
    const scratch_folder folder;
    auto cache = mapped_cache<bf16, double>::create(folder / "cache", {2, 3, 9, 5}, 16);
    append<float, f16>(cache, numbered(0, 5), layout::tokens());
    append<double, bf16>(cache, numbered(5, 40), layout::strided());
    append<bf16, double>(cache, numbered(45, 1), layout::channels_first());
    append<f16, float>(cache, numbered(46, 0), layout::padded());
    EXPECT_TRUE(holds(cache, numbered(0, 46)));
}

TEST(mapped, runs_are_as_long_as_segments) {
    const scratch_folder folder;
    auto cache = mapped_cache<float>::create(folder / "cache", {1, 2, 3, 4}, 100);
    EXPECT_EQ(cache.bytes(), 4096);
    append(cache, numbered(0, 250));
    EXPECT_EQ(cache.segment(), 100);
    EXPECT_EQ(cache.bytes(), 4096 + 3 * (2432 + 3200));  // 2 heads of 100 rows of 3 and of 4 floats, on cache lines
    EXPECT_EQ(cache.run(0, 1, 0).keys, (range{0, 100}));
    EXPECT_EQ(cache.run(0, 1, 130).keys, (range{130, 200}));
    EXPECT_EQ(cache.run(0, 1, 200).keys, (range{200, 250}));
    const auto memory = cache.memory();
    for (index_t j : {0, 99, 100, 249}) {
        const auto* row = static_cast<const std::byte*>(cache.run(0, 1, j).v.address(0));
        EXPECT_TRUE(memory.data() <= row && row + 16 <= memory.data() + memory.size());
    }
    cache.reserve(1000);
    const index_t reserved = cache.bytes();
    append(cache, numbered(250, 750));
    EXPECT_EQ(cache.bytes(), reserved);
    cache.reserve(0);
    EXPECT_EQ(message([&] { cache.reserve(-5); }), "mapped_cache: cannot reserve -5 tokens");
    EXPECT_EQ(cache.bytes(), reserved);
    EXPECT_TRUE(holds(cache, numbered(0, 1000)));
}

TEST(mapped, errors_change_nothing) {
    const scratch_folder folder;
    const std::string path = folder / "cache";
    auto cache = mapped_cache<float>::create(path, {2, 3, 4, 5}, 8);
    append(cache, numbered(0, 7));
    const std::string before = bytes_of(path);
    const auto says = [&](const std::string& sentence, const tensor<float>& k, const tensor<float>& v) {
        EXPECT_EQ(message([&] { cache.append(k, v); }), "mapped_cache: " + sentence);
    };
    const auto own = cache.run(0, 0, 0);
    EXPECT_EQ(message([&] {
                  cache.append(view<const float>{own.k.data, {2, 3, 1, 4}, {0, 0, 0, 1}}, tensor<float>({2, 3, 1, 5}));
              }),
              "mapped_cache: k overlaps the cache in memory");
    using t = tensor<float>;
    says("k has batch 1, the cache has 2", t({1, 3, 2, 4}), t({2, 3, 2, 5}));
    says("k has heads 2, the cache has 3", t({2, 2, 2, 4}), t({2, 3, 2, 5}));
    says("v has heads 4, the cache has 3", t({2, 3, 2, 4}), t({2, 4, 2, 5}));
    says("k has width 5, the cache has 4", t({2, 3, 2, 5}), t({2, 3, 2, 5}));
    says("v has width 4, the cache has 5", t({2, 3, 2, 4}), t({2, 3, 2, 4}));
    says("v has 3 tokens, k has 2", t({2, 3, 2, 4}), t({2, 3, 3, 5}));
    EXPECT_EQ(message([&] { cache.truncate(8); }), "mapped_cache: cannot drop 8 tokens of 7");
    EXPECT_EQ(message([&] { cache.truncate(-1); }), "mapped_cache: cannot drop -1 tokens of 7");
    EXPECT_NE(message([&] { cache.reserve(std::numeric_limits<index_t>::max()); }), "no error");
    EXPECT_NE(message([&] { cache.reserve(std::numeric_limits<index_t>::max() / 100); }), "no error");
    EXPECT_EQ(message([&] {
                  mapped_cache<float>::create(path, {2, 3, 4, 5});
              }),
              "mapped_cache: " + path + ": File exists");
    EXPECT_EQ(message([&] { mapped_cache<float>::open(path); }),
              "mapped_cache: " + path + " is open for appending elsewhere");
    EXPECT_TRUE(holds(cache, numbered(0, 7)));
    EXPECT_EQ(bytes_of(path), before);

    auto reading = mapped_cache<float>::open(path, mapped_access::read);
    const std::string only = "mapped_cache: " + path + " is open to read only";
    const auto k = token_rows<float>({1}, side::key, 2, 3, 4), v = token_rows<float>({1}, side::value, 2, 3, 5);
    EXPECT_EQ(message([&] { reading.append(k, v); }), only);
    EXPECT_EQ(message([&] { reading.truncate(1); }), only);
    EXPECT_EQ(message([&] { reading.reserve(100); }), only);
    EXPECT_EQ(message([&] { reading.sync(); }), only);
    EXPECT_TRUE(holds(reading, numbered(0, 7)));
}

TEST(mapped, create_leaves_nothing_behind_where_it_fails) {
    const scratch_folder folder;
    const std::string path = folder / "cache";
    const auto refused = [&](const cache_shape& shape, index_t segment) {
        const std::string said = message([&] { mapped_cache<float>::create(path, shape, segment); });
        EXPECT_FALSE(std::filesystem::exists(path));
        return said;
    };
    EXPECT_EQ(refused({1, 1, 1, 1}, 0), "mapped_cache: segment is 0, the least is 1");
    EXPECT_EQ(refused({1, -2, 1, 1}, 1), "mapped_cache: G is -2");
    const index_t huge = index_t(1) << 40;
    EXPECT_NE(refused({1, 1, huge, 1}, huge), "no error");
    EXPECT_NE(refused({huge, huge, 1, 1}, 1), "no error");
    EXPECT_NE(refused({huge, 1, huge, 1}, 1), "no error");
    EXPECT_NE(refused({1, 1, std::numeric_limits<index_t>::max(), 1}, 1), "no error");
    EXPECT_EQ(message([&] {
                  mapped_cache<float>::create(folder / "no/such", {1, 1, 1, 1});
              }),
              "mapped_cache: " + (folder / "no/such") + ": No such file or directory");
    EXPECT_EQ(message([&] { mapped_cache<float>::open(folder / "nowhere"); }),
              "mapped_cache: " + (folder / "nowhere") + ": No such file or directory");
    EXPECT_NE(message([&] { mapped_cache<float>::open(folder / ".", mapped_access::read); }), "no error");
}

/// A file with 20 tokens, in segments of 8.
class malformed : public testing::Test {
protected:
    malformed() {
        auto cache = mapped_cache<float>::create(path, {1, 2, 3, 4}, 8);
        append(cache, numbered(0, 19));
        append(cache, numbered(19, 1));
        good = bytes_of(path);
    }
    /// What opening says of these bytes, without the path, either way of opening.
    std::string said(const std::string& bytes) {
        write_bytes(path, bytes);
        const std::string reading = message([&] { mapped_cache<float>::open(path, mapped_access::read); });
        EXPECT_EQ(message([&] { mapped_cache<float>::open(path); }), reading);
        EXPECT_EQ(bytes_of(path), bytes);
        const std::string start = "mapped_cache: " + path + " ";
        return reading.rfind(start, 0) == 0 ? reading.substr(start.size()) : reading;
    }
    std::string with(std::size_t at, const std::string& other) {
        std::string bytes = good;
        return bytes.replace(at, other.size(), other);
    }
    /// The sum of a record made right again.
    template <class Record>
    static void seal(std::string& bytes, std::size_t at) {
        Record record;
        std::memcpy(&record, bytes.data() + at, sizeof record);
        record.sum = record.right_sum();
        std::memcpy(bytes.data() + at, &record, sizeof record);
    }

    const scratch_folder folder;
    const std::string path = folder / "cache";
    std::string good;
};

TEST_F(malformed, foreign_files) {
    EXPECT_EQ(said(""), "holds 0 bytes, the header alone needs 4096");
    EXPECT_EQ(said("heed kv\n"), "holds 8 bytes, the header alone needs 4096");
    EXPECT_EQ(said(std::string(100000, 'x')), "is not a mapped cache");
    EXPECT_EQ(said(std::string(4096, '\0')), "is not a mapped cache");
    EXPECT_EQ(said(with(8, {"\x01\x02\x03\x04", 4})), "was written on a machine of other byte order");
    EXPECT_EQ(said(with(12, "\x07")), "has format 7, this is heed's format 1");
}

TEST_F(malformed, cut_off) {
    const std::string tail = "its 20 tokens need " + std::to_string(good.size());
    for (const std::size_t size : {good.size() - 1, std::size_t(5000), std::size_t(4096)})
        EXPECT_EQ(said(good.substr(0, size)), "is cut off: it holds " + std::to_string(size) + " bytes, " + tail);
    EXPECT_EQ(said(good.substr(0, 4095)), "holds 4095 bytes, the header alone needs 4096");
}

TEST_F(malformed, damaged_header) {
    for (std::size_t at = 16; at < sizeof(heed::detail::mapped_header); ++at)
        EXPECT_EQ(said(with(at, std::string(1, static_cast<char>(good[at] ^ 4)))),
                  "is damaged: the checksum of its header does not match")
            << at;
}

TEST_F(malformed, other_types_and_extents) {
    const auto type = [&](auto open) { return message([&] { open(); }); };
    const std::string holds_floats = "mapped_cache: " + path + " holds keys of float and values of float, not ";
    EXPECT_EQ(type([&] { mapped_cache<double>::open(path); }), holds_floats + "double and double");
    EXPECT_EQ(type([&] { mapped_cache<float, bf16>::open(path); }), holds_floats + "float and bf16");
    EXPECT_EQ(type([&] { mapped_cache<f16, float>::open(path); }), holds_floats + "f16 and float");
    EXPECT_EQ(type([&] {
                  mapped_cache<float>::open(path, {1, 2, 3, 5});
              }),
              "mapped_cache: " + path + " has E 4, not 5");
    EXPECT_EQ(type([&] {
                  mapped_cache<float>::open(path, {1, 3, 3, 4});
              }),
              "mapped_cache: " + path + " has G 2, not 3");
    EXPECT_TRUE(holds(mapped_cache<float>::open(path, {1, 2, 3, 4}), numbered(0, 20)));
}

TEST_F(malformed, values_out_of_range_under_a_right_checksum) {
    using header = heed::detail::mapped_header;
    const auto forged = [&](std::size_t at, std::int64_t value) {
        std::string bytes = with(at, std::string(reinterpret_cast<const char*>(&value), sizeof value));
        seal<header>(bytes, 0);
        return said(bytes);
    };
    EXPECT_EQ(forged(offsetof(header, segment), 0), "mapped_cache: segment is 0, the least is 1");
    EXPECT_EQ(forged(offsetof(header, B), -1), "mapped_cache: B is -1");
    EXPECT_EQ(forged(offsetof(header, D), 5), "mapped_cache: rows of 5 and 4 elements stand 3 and 4 apart");
    EXPECT_NE(forged(offsetof(header, D), -1), "no error");
    EXPECT_NE(forged(offsetof(header, B), std::numeric_limits<std::int64_t>::max()), "no error");
    EXPECT_NE(forged(offsetof(header, segment), std::numeric_limits<std::int64_t>::max()), "no error");
}

TEST_F(malformed, commit_records) {
    using commit = heed::detail::mapped_commit;
    const auto [first, second] = heed::detail::mapped_layout::commit_at;
    const auto sequence = [&](std::size_t at) {
        commit c;
        std::memcpy(&c, good.data() + at, sizeof c);
        return c.sequence;
    };
    const std::size_t a = static_cast<std::size_t>(first), b = static_cast<std::size_t>(second);
    const std::size_t newest = sequence(a) > sequence(b) ? a : b;
    ASSERT_EQ(sequence(a) + sequence(b), 5u);                            // created, 19 tokens, 1 token
    for (std::size_t at = newest; at < newest + sizeof(commit); ++at) {  // torn: the state before is whole
        const std::string torn = with(at, std::string(1, static_cast<char>(good[at] ^ 1)));
        EXPECT_EQ(said(torn), "no error");
        EXPECT_TRUE(holds(mapped_cache<float>::open(path), numbered(0, 19)));
    }
    std::string both = with(a + 8, "\x33");
    both[b + 8] ^= 1;
    EXPECT_EQ(said(both), "is damaged: no commit record has its checksum");

    std::string more = with(newest + 8, "\x33");  // more tokens than there are bytes for
    seal<commit>(more, newest);
    EXPECT_EQ(said(more).substr(0, 10), "is cut off");
}

/// Whichever record a power loss leaves, it promises no token that was dropped and may have been overwritten.
TEST_F(malformed, what_sync_promised_is_taken_back_before_it_goes) {
    using commit = heed::detail::mapped_commit;
    auto cache = mapped_cache<float>::open(path);
    const auto promised = [&] {
        std::vector<std::int64_t> of_records;
        const std::string bytes = bytes_of(path);
        for (const index_t place : heed::detail::mapped_layout::commit_at) {
            commit c;
            std::memcpy(&c, bytes.data() + place, sizeof c);
            EXPECT_TRUE(c.whole());
            of_records.push_back(c.synced);
        }
        return *std::max_element(of_records.begin(), of_records.end());
    };
    EXPECT_EQ(promised(), 0);
    cache.sync();
    EXPECT_EQ(promised(), 20);
    append(cache, numbered(20, 4));
    cache.truncate(3);
    EXPECT_EQ(promised(), 20);
    cache.truncate(6);
    EXPECT_EQ(promised(), 15);
    append(cache, numbered(50, 9));
    EXPECT_EQ(promised(), 15);
    EXPECT_EQ(cache.synced(), 15);
    cache.sync();
    EXPECT_EQ(promised(), 24);
}

TEST_F(malformed, leftovers_of_a_kill_are_used_again) {
    write_bytes(path, good + std::string(100, 'x'));  // a kill while the file was growing
    auto cache = mapped_cache<float>::open(path);
    EXPECT_TRUE(holds(cache, numbered(0, 20)));
    append(cache, numbered(20, 80));
    EXPECT_TRUE(holds(cache, numbered(0, 100)));
}

}  // namespace
