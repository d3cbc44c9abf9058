#include "task.hpp"

#include <cstdio>
#include <heed/ref/mamba2.hpp>
#include <heed/ref/recurrence.hpp>

namespace bench {

std::string recurrence_task::name(const std::string& dtype) const {
    return "recurrence/" + op + "/" + dtype + "/d:" + std::to_string(D) + "/e:" + std::to_string(E) +
           "/n:" + std::to_string(N) + "/h:" + std::to_string(H) + "/threads:" + std::to_string(threads);
}

double recurrence_task::flops() const {
    const bool delta = op == "deltanet" || op == "gated_deltanet" || op == "kda";
    const double an_element = delta ? 6 : op == "rwkv7" ? 8 : 4;
    return an_element * static_cast<double>(N * H) * static_cast<double>(rows() * E);
}

template <class V>
V sequence::carve(const extents<V::rank>& shape, float*& at) {
    const V one{at, shape, dense_strides(shape)};
    at += round_up(one.size(), 16);
    return one;
}

sequence::sequence(const recurrence_task& t) {
    const index_t rows = t.H * t.N;
    memory_.resize(static_cast<std::size_t>(rows * (5 * t.D + 2 * t.E + 2) + t.H * t.D + 16 * 12));
    float* at = memory_.data();
    const extents<4> key{1, t.H, t.N, t.D}, value{1, t.H, t.N, t.E};
    q = carve<view<float>>(key, at);
    k = carve<view<float>>(key, at);
    v = carve<view<float>>(value, at);
    o = carve<view<float>>(value, at);
    channel_logs = carve<view<float>>(key, at);
    a = carve<view<float>>(key, at);
    b = carve<view<float>>(key, at);
    token_logs = carve<view<float, 3>>({1, t.H, t.N}, at);
    beta = carve<view<float, 3>>({1, t.H, t.N}, at);
    own = carve<view<float, 2>>({t.H, t.D}, at);
    std::uint64_t seed = 88172645463325252u;
    const auto unit = [&] {  // variance 1
        seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
        return (static_cast<float>(seed >> 40) * 0x1p-24f - 0.5f) * 3.464f;
    };
    for (const auto& x : {q, k, v})
        for (index_t i = 0; i < x.size(); ++i) x.data[i] = unit();
    for (index_t r = 0; r < rows; ++r) {
        float* const key_row = k.data + r * t.D;
        float squares = 0;
        for (index_t d = 0; d < t.D; ++d) squares += key_row[d] * key_row[d];
        const float gate = 0.5f + unit() / 4;
        for (index_t d = 0; d < t.D; ++d) {
            key_row[d] /= std::sqrt(squares);
            channel_logs.data[r * t.D + d] = -0.02f * std::abs(unit());
            a.data[r * t.D + d] = -key_row[d] * gate;
            b.data[r * t.D + d] = key_row[d];
        }
        token_logs.data[r] = -0.02f * std::abs(unit());
        beta.data[r] = gate;
    }
    for (index_t i = 0; i < own.size(); ++i) own.data[i] = unit();
    for (index_t h = 0; h < t.H; ++h)
        head_logs.push_back(static_cast<float>(std::log1p(-std::exp2(-5.0 - static_cast<double>(h % 8)))));
}

std::shared_ptr<const sequence> sequence_of(const recurrence_task& t) {
    const std::string name = "sequence " + std::to_string(t.D) + " " + std::to_string(t.E) + " " + std::to_string(t.N) +
                             " " + std::to_string(t.H);
    return at_hand(name, [&] { return sequence(t); });
}

namespace {

void define_recurrence(const recurrence_task& t, const sequence& x, const sequence_views& part, const view<double>& o) {
    if (t.op == "mamba2")
        return ref::mamba2<double>(part.v, part.beta, view<const float, 1>{x.head_logs.data(), {t.H}, {1}}, part.k,
                                   part.q, o);
    ref::recurrence_options<double> with;
    const bool by_token = t.op == "simple_gla" || t.op == "gated_deltanet";
    const bool by_channel = t.op == "gla" || t.op == "kda" || t.op == "rwkv6" || t.op == "rwkv7";
    if (by_token)
        with.key_decay = [&](index_t b, index_t h, index_t n, index_t) { return double(x.token_logs(b, h, n)); };
    if (by_channel)
        with.key_decay = [&](index_t b, index_t h, index_t n, index_t d) { return double(x.channel_logs(b, h, n, d)); };
    if (t.op == "retention")
        with.key_decay = [&](index_t, index_t h, index_t, index_t) { return double(x.head_logs[std::size_t(h)]); };
    if (t.op == "deltanet" || t.op == "gated_deltanet" || t.op == "kda")
        with.beta = [&](index_t b, index_t h, index_t n) { return double(x.beta(b, h, n)); };
    if (t.op == "rwkv7") {
        with.a = [&](index_t b, index_t h, index_t n, index_t d) { return double(x.a(b, h, n, d)); };
        with.b = [&](index_t b, index_t h, index_t n, index_t d) { return double(x.b(b, h, n, d)); };
    }
    if (t.op == "rwkv6") with.bonus = [&](index_t h, index_t d) { return double(x.own(h, d)); };
    with.read_before = t.op == "rwkv6";
    with.normalised = t.op == "based";
    if (t.op == "based") {
        with.key_features = [](const std::vector<double>& row, index_t) {
            std::vector<double> y{1};
            for (double one : row) y.push_back(one);
            for (double one : row)
                for (double other : row) y.push_back(one * other / std::sqrt(2.0));
            return y;
        };
        with.query_features = [&](std::vector<double> row, index_t h) {
            for (double& one : row) one /= std::sqrt(static_cast<double>(t.D));
            return with.key_features(row, h);
        };
    }
    ref::recurrence(part.q, part.k, part.v, o, with);
}

/// Worst error over the largest element, over a prefix of the first heads.
double error_of(const recurrence_task& t, const sequence& x, const definition& define) {
    const range some{0, std::min<index_t>(t.N, 80)}, heads{0, std::min<index_t>(t.H, 2)};
    const index_t H = heads.size();
    std::vector<double> memory(static_cast<std::size_t>(H * some.size() * t.E));
    const auto want = bench::heads(memory.data(), {1, H, some.size(), t.E});
    define(x.cut(heads, some), want);
    double worst = 0, largest = 0;
    for (index_t h = 0; h < H; ++h)
        for (index_t n = 0; n < some.size(); ++n)
            for (index_t e = 0; e < t.E; ++e) {
                const double off = std::abs(want(0, h, n, e) - static_cast<double>(x.o(0, h, n, e)));
                if (std::isnan(off)) return off;
                worst = std::max(worst, off);
                largest = std::max(largest, std::abs(want(0, h, n, e)));
            }
    return worst / largest;
}

}  // namespace

prepared judged_recurrence(const recurrence_task& task, std::shared_ptr<const sequence> x, job run,
                           const definition& define) {
    std::fill_n(x->o.data, x->o.size(), std::numeric_limits<float>::quiet_NaN());
    run();
    const double error = error_of(task, *x, define);
    char wrong[80] = "";
    if (!(error <= 2e-5)) std::snprintf(wrong, sizeof wrong, "wrong: off by %.1e of the largest", error);
    const double bytes = sizeof(float) * static_cast<double>(task.H * task.N * (2 * task.D + 2 * task.E));
    return {.run = std::move(run),
            .wrong = wrong,
            .flops = task.flops(),
            .bytes = bytes,
            .columns = {{"error", error}},
            .output = std::as_bytes(std::span(x->o.data, static_cast<std::size_t>(x->o.size())))};
}
prepared judged_recurrence(const recurrence_task& task, std::shared_ptr<const sequence> x, job run) {
    return judged_recurrence(task, x, std::move(run), [task, x](const sequence_views& part, const view<double>& o) {
        define_recurrence(task, *x, part, o);
    });
}

}  // namespace bench
