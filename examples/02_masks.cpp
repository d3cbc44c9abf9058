// 02: masks, how they combine, and how to write one.
//
// A mask is a set of pairs (query position i, key position j). & keeps the pairs of both sets, | those of either.
#include <chrono>
#include <cmath>
#include <cstdio>
#include <heed/heed.hpp>
#include <string>
#include <vector>

using namespace heed;

// An interval mask: a row sees the keys [first, last), which one function tells. Here pixels in raster order see the
// row of the image above and their own row up to themselves. Ends that never decrease from one query to the next
// (monotone) let the engine speak for a whole block of queries by asking the first and the last.
struct raster {
    using role = roles::mask;
    static constexpr bool monotone = true;
    index_t width;
    range keys(const where& w) const { return {(w.i / width - 1) * width, w.i + 1}; }
};

// Any other set: allows() is the definition. next() and full() only save time: next() names the first key from j on
// that some row of the block may see, so what lies between is never touched; full() marks tiles that need no mask at
// all. Here everyone sees the first `top` keys of each page.
struct headlines {
    using role = roles::mask;
    index_t page, top;
    bool allows(const where& w) const { return w.j % page < top; }
    index_t next(const rows&, index_t j) const { return j % page < top ? j : (j / page + 1) * page; }
    bool full(const rows&, range keys) const { return keys.first % page + keys.size() <= top; }
};

int main() {
    std::vector<std::string> lines(13);
    const auto show = [&](std::string title, const auto& mask) {
        title.resize(16, ' ');
        lines[0] += title;
        const auto picture = draw(mask, 12, 12);  // rows are queries, columns are keys
        for (std::size_t i = 0; i < 12; ++i) {
            for (std::size_t j = 0; j < 12; ++j) lines[i + 1] += picture[i][j] ? '#' : '.';
            lines[i + 1] += "    ";
        }
    };
    const std::vector<index_t> starts{0, 5, 7, 12};  // three documents packed into one sequence
    show("causal", causal{});
    show("window & causal", window{3} & causal{});
    show("window | sinks", causal{} & (window{3} | first{2}));
    show("documents", document{starts, causal{}});
    show("raster", raster{4});
    show("headlines", causal{} & (window{1} | headlines{4, 1}));
    for (const std::string& line : lines) std::printf("%s\n", line.c_str());

    // A lambda is a mask too, but it only answers for one pair, so the engine has to ask for each of them. The struct
    // says the same set in terms of ranges, and pays for what is visible only.
    const index_t N = 2048, D = 64;
    std::vector<float> x(N * D), a(x.size()), b(x.size());
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(counter_random(2).normal(i));
    const auto in = heads(x.data(), {1, 1, N, D});
    const auto milliseconds = [&](std::vector<float>& out, const auto& mask) {
        attention(in, in, in, heads(out.data(), {1, 1, N, D}), mask);  // the first call also gets its scratch
        const auto start = std::chrono::steady_clock::now();
        attention(in, in, in, heads(out.data(), {1, 1, N, D}), mask);
        return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
    };
    bool same = true;
    const auto compare = [&](const char* name, const auto& lambda, const auto& mask) {
        const double slow = milliseconds(a, lambda), fast = milliseconds(b, mask);
        for (std::size_t i = 0; i < a.size(); ++i) same = same && std::abs(a[i] - b[i]) < 1e-5f;
        std::printf("%-10s %4.1f %% of the pairs: %.2f ms as a lambda, %.2f ms as a struct\n", name,
                    100.0 * double(area(mask, 1, 1, N, N)) / double(N * N), slow, fast);
    };
    compare(
        "raster", [](const where& w) { return w.j <= w.i && w.j >= (w.i / 32 - 1) * 32; }, raster{32});
    compare(
        "headlines", [](const where& w) { return w.j <= w.i && (w.i - w.j <= 64 || w.j % 512 < 16); },
        causal{} & (window{64} | headlines{512, 16}));
    return same && area(causal{}, 1, 1, N, N) == N * (N + 1) / 2 ? 0 : 1;
}
