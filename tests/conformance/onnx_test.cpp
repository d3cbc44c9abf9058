// heed_test: $<TARGET_OBJECTS:heed_replays>
// Cases of ONNX Attention and RotaryEmbedding with random parameters, their outputs by the words of the operators'
// documents, replayed by the kernels and by the definitions: what golden cases do not happen to touch.
#include <gtest/gtest.h>

#include "random.hpp"
#include "replay.hpp"
#include "scratch_folder.hpp"
#include "source_tokens.hpp"

namespace conformance {
template <class T>
double replay_attention_of(golden_case& g, engine by);
extern template double replay_attention_of<float>(golden_case&, engine);
}  // namespace conformance

namespace {

using namespace conformance;
using test::dice;
using shape_of = std::vector<index_t>;

index_t size_of(const shape_of& shape) {
    index_t n = 1;
    for (index_t extent : shape) n *= extent;
    return n;
}
std::string joined(const shape_of& shape, const char* by) {
    std::string all;
    for (index_t extent : shape) all += (all.empty() ? "" : by) + std::to_string(extent);
    return all;
}

/// Numbers and the place of an element, in C order.
struct numbers {
    shape_of shape;
    std::vector<double> at;

    explicit numbers(const shape_of& s) : shape(s), at(static_cast<std::size_t>(size_of(s))) {}
    numbers(const shape_of& s, dice& d) : numbers(s) {
        const counter_random random(d.seed());
        for (std::size_t i = 0; i < at.size(); ++i) at[i] = static_cast<float>(random.normal(i));
    }
    template <class... I>
    double& operator()(I... index) {
        std::size_t place = 0, axis = 0;
        ((place = place * static_cast<std::size_t>(shape[axis++]) + static_cast<std::size_t>(index)), ...);
        return at[place];
    }
};

/// A folder being filled with a case.
class made_case {
public:
    explicit made_case(const std::string& op) { text_ = "op " + op + "\n"; }
    template <class X>
    void attr(const std::string& name, const X& value) {
        std::ostringstream line;
        line << "attr " << name << " " << value << "\n";
        text_ += line.str();
    }
    template <class T>
    void array(const char* side, const std::string& name, const char* type, const char* descr, const numbers& x) {
        const std::string file = std::string(side) + "_" + name + ".npy";
        std::string header = std::string("{'descr': '") + descr + "', 'fortran_order': False, 'shape': (" +
                             joined(x.shape, ", ") + (x.shape.size() == 1 ? ",)" : ")") + ", }";
        header.resize((header.size() + 11 + 63) / 64 * 64 - 11, ' ');
        header += '\n';
        std::ofstream out(folder_ / file, std::ios::binary);
        out << "\x93NUMPY\x01" << '\0' << static_cast<char>(header.size()) << static_cast<char>(header.size() >> 8)
            << header;
        for (const double value : x.at) {
            const T stored = static_cast<T>(value);
            out.write(reinterpret_cast<const char*>(&stored), sizeof stored);
        }
        text_ += std::string(side) + " " + name + " " + type + " " + joined(x.shape, "x") + " " + file + "\n";
    }
    void floats(const char* side, const std::string& name, const numbers& x) {
        array<float>(side, name, "float32", "<f4", x);
    }
    /// By both engines; nothing in the case may stay unread.
    template <class Replay>
    void expect(const Replay& replay) {
        std::ofstream(folder_ / "case.txt") << text_;
        for (engine by : {engine::heed, engine::reference}) try {
                golden_case c(std::filesystem::path(folder_ / ""));
                c.load();
                replay(c, by);
                c.require_all_read();
            } catch (const std::exception& e) {
                ADD_FAILURE() << (by == engine::heed ? "heed: " : "reference: ") << e.what() << "\n" << text_;
            }
    }

private:
    const test::scratch_folder folder_;
    std::string text_;
};

constexpr double hidden = -std::numeric_limits<double>::infinity();

/// attn_mask: of any rank, axes of extent 1, perhaps fewer keys than there are; boolean, of floats or of integers.
struct drawn_mask {
    numbers given{shape_of{}};
    int kind = 0;  // 0 none, 1 boolean, 2 floats, 3 integers

    drawn_mask(const shape_of& logits, index_t fewest, dice& d) : kind(static_cast<int>(d.below(5)) % 4) {
        const index_t rank = 1 + d.below(4), M = logits[3];
        shape_of shape;
        for (index_t axis = 4 - rank; axis < 3; ++axis)
            shape.push_back(d.below(2) == 0 ? 1 : logits[static_cast<std::size_t>(axis)]);
        shape.push_back(d.below(3) == 0 ? fewest + d.below(M - fewest + 1) : M);
        given = numbers(shape, d);
        const bool rows_hide = d.below(3) == 0;
        for (std::size_t i = 0; i < given.at.size(); ++i) {
            const bool out = d.below(4) == 0 || (rows_hide && static_cast<index_t>(i) / shape.back() % 2 == 0);
            if (kind == 1) given.at[i] = !out;
            if (kind == 2 && out) given.at[i] = d.below(2) == 0 ? hidden : double(std::numeric_limits<float>::lowest());
            if (kind == 3) given.at[i] = static_cast<double>(d.below(5));
        }
    }
    /// What is added to logit (b, h, i, j).
    double operator()(index_t b, index_t h, index_t i, index_t j) {
        if (kind == 0) return 0;
        const index_t held = given.shape.back(), at[] = {b, h, i};
        if (j >= held) return hidden;
        index_t place = 0;
        const std::size_t rank = given.shape.size();
        for (std::size_t axis = 0; axis + 1 < rank; ++axis)
            place = place * given.shape[axis] + (given.shape[axis] == 1 ? 0 : at[axis + 4 - rank]);
        const double x = given.at[static_cast<std::size_t>(place * held + j)];
        return kind != 1 ? x : x != 0 ? 0 : hidden;
    }
    void write(made_case& to) const {
        if (kind == 1) to.array<std::uint8_t>("in", "attn_mask", "bool", "|b1", given);
        if (kind == 2) to.floats("in", "attn_mask", given);
        if (kind == 3) to.array<std::int32_t>("in", "attn_mask", "int32", "<i4", given);
    }
};

/// (b, h, n, d) in the file's rank: 4, or 3 with heads inside tokens.
numbers in_rank(numbers x, bool packed) {
    if (!packed) return x;
    const index_t B = x.shape[0], H = x.shape[1], N = x.shape[2], D = x.shape[3];
    numbers out({B, N, H * D});
    for (index_t b = 0; b < B; ++b)
        for (index_t h = 0; h < H; ++h)
            for (index_t n = 0; n < N; ++n)
                for (index_t d = 0; d < D; ++d) out(b, n, h * D + d) = x(b, h, n, d);
    return out;
}
numbers appended(numbers past, numbers now) {
    const index_t B = now.shape[0], G = now.shape[1], P = past.shape[2], S = now.shape[2], D = now.shape[3];
    numbers all({B, G, P + S, D});
    for (index_t b = 0; b < B; ++b)
        for (index_t g = 0; g < G; ++g)
            for (index_t j = 0; j < P + S; ++j)
                for (index_t d = 0; d < D; ++d) all(b, g, j, d) = j < P ? past(b, g, j, d) : now(b, g, j - P, d);
    return all;
}

void expect_attention(dice& d) {
    made_case c("Attention");
    const index_t B = 1 + d.below(3), G = 1 + d.below(3), H = G * (1 + d.below(3)), N = 1 + d.below(5);
    const index_t S = 1 + d.below(7), D = 1 + d.below(9), E = d.below(3) == 0 ? D : 1 + d.below(9);
    const bool packed = d.below(2) == 0, cached = d.below(3) == 0, external = !cached && d.below(2) == 0;
    const index_t P = cached ? d.below(6) : 0, M = P + S;
    numbers q({B, H, N, D}, d), k({B, G, S, D}, d), v({B, G, S, E}, d);
    if (packed) c.attr("q_num_heads", H), c.attr("kv_num_heads", G);
    c.floats("in", "Q", in_rank(q, packed)), c.floats("in", "K", in_rank(k, packed));
    c.floats("in", "V", in_rank(v, packed));
    if (cached) {
        const numbers past_k({B, G, P, D}, d), past_v({B, G, P, E}, d);
        c.floats("in", "past_key", past_k), c.floats("in", "past_value", past_v);
        c.floats("out", "present_key", k = appended(past_k, k));
        c.floats("out", "present_value", v = appended(past_v, v));
    }
    std::vector<index_t> offset(static_cast<std::size_t>(B), P), keys(offset.size(), M);
    index_t most = 0;
    if (external) {
        numbers nonpad({B});
        for (std::size_t b = 0; b < keys.size(); ++b) {
            keys[b] = d.below(M + 1);
            nonpad.at[b] = static_cast<double>(keys[b]);
            offset[b] = keys[b] - N;
            most = std::max(most, keys[b]);
        }
        c.array<std::int64_t>("in", "nonpad_kv_seqlen", "int64", "<i8", nonpad);
    }
    drawn_mask mask({B, H, N, M}, external ? most : 1, d);
    mask.write(c);
    const bool is_causal = d.below(2) == 0;
    if (is_causal || d.below(2) == 0) c.attr("is_causal", int(is_causal));
    const index_t left = d.below(6) - 2, right = d.below(6) - 2;  // -2: not given
    if (left >= -1) c.attr("left_window_size", left);
    if (right >= -1) c.attr("right_window_size", right);
    double scale = 1 / std::sqrt(static_cast<double>(D)), softcap = 0;
    if (d.below(3) == 0) c.attr("scale", scale = static_cast<double>(d.below(3)) / 4);
    if (d.below(3) == 0) c.attr("softcap", softcap = static_cast<double>(d.below(3)));
    if (const index_t precision = d.below(4); precision < 2) c.attr("softmax_precision", precision == 0 ? 1 : 11);
    const index_t mode = d.below(5) - 1;  // -1: not given, and not asked for
    if (mode >= 0) c.attr("qk_matmul_output_mode", mode);

    numbers y({B, H, N, E}), matmul({B, H, N, M});
    for (index_t b = 0; b < B; ++b)
        for (index_t h = 0; h < H; ++h)
            for (index_t i = 0; i < N; ++i) {
                const index_t g = h / (H / G), p = i + offset[static_cast<std::size_t>(b)];
                std::vector<double> x(static_cast<std::size_t>(M));
                double top = hidden, sum = 0;
                bool all_masked = true;
                for (index_t j = 0; j < M; ++j) {
                    double& logit = x[static_cast<std::size_t>(j)];
                    for (index_t e = 0; e < D; ++e) logit += scale * q(b, h, i, e) * k(b, g, j, e);
                    if (mode == 0) matmul(b, h, i, j) = logit;
                    if (softcap > 0) logit = softcap * std::tanh(logit / softcap);
                    if (mode == 1) matmul(b, h, i, j) = logit;
                    const bool sees = (!is_causal || j <= p) && (left < 0 || p - left <= j) &&
                                      (right < 0 || j <= p + right) && j < keys[static_cast<std::size_t>(b)];
                    const double bias = sees ? mask(b, h, i, j) : hidden;
                    all_masked = all_masked && bias == hidden;
                    logit = static_cast<float>(logit + bias);
                    if (mode == 2) matmul(b, h, i, j) = logit;
                    top = std::max(top, logit);
                }
                for (double& logit : x) sum += logit = all_masked ? 0 : std::exp(logit - top);
                for (index_t j = 0; j < M; ++j) {
                    const double weight = all_masked ? 0 : x[static_cast<std::size_t>(j)] / sum;
                    if (mode == 3) matmul(b, h, i, j) = weight;
                    for (index_t e = 0; e < E; ++e) y(b, h, i, e) += weight * v(b, g, j, e);
                }
            }
    c.floats("out", "Y", in_rank(y, packed));
    if (mode >= 0) c.floats("out", "qk_matmul_output", matmul);
    c.expect(replay_attention_of<float>);
}

TEST(onnx, attention_with_any_parameters) {
    dice d(1);
    for (int i = 0; i < 600 && !testing::Test::HasFailure(); ++i) expect_attention(d);
}

void expect_rotary(dice& d) {
    made_case c("RotaryEmbedding");
    const index_t B = 1 + d.below(3), H = 1 + d.below(3), N = 1 + d.below(6), D = 2 * (1 + d.below(9));
    const bool packed = d.below(2) == 0, interleave = d.below(2) == 0;
    index_t width = D;
    if (d.below(2) == 0) c.attr("rotary_embedding_dim", width = d.below(3) == 0 ? 0 : 2 * (1 + d.below(D / 2)));
    if (width == 0) width = D;
    if (interleave || d.below(2) == 0) c.attr("interleaved", int(interleave));
    if (packed) c.attr("num_heads", H);
    numbers x({B, H, N, D}, d);
    c.floats("in", "input", in_rank(x, packed));
    const index_t kind = d.below(5), P = 12;  // (B, N) ids, (1, N), (N), (1), none
    std::vector<index_t> ids(static_cast<std::size_t>(B * N));
    const shape_of shapes[] = {{B, N}, {1, N}, {N}, {1}};
    if (kind < 4) {
        numbers given(shapes[kind]);
        for (double& id : given.at) id = static_cast<double>(d.below(P - (kind == 3 ? N : 0)));
        c.array<std::int64_t>("in", "position_ids", "int64", "<i8", given);
        for (index_t b = 0; b < B; ++b)
            for (index_t n = 0; n < N; ++n)
                ids[static_cast<std::size_t>(b * N + n)] =
                    static_cast<index_t>(given.at[static_cast<std::size_t>(kind == 3   ? 0
                                                                           : kind == 0 ? b * N + n
                                                                                       : n)]) +
                    (kind == 3 ? n : 0);
    }
    const bool one_row = kind == 4 && d.below(2) == 0;
    const shape_of caches = kind < 4 ? shape_of{P, width / 2} : shape_of{one_row ? 1 : B, N, width / 2};
    numbers cos(caches, d), sin(caches, d);
    c.floats("in", "cos_cache", cos), c.floats("in", "sin_cache", sin);
    numbers out = x;
    for (index_t b = 0; b < B; ++b)
        for (index_t h = 0; h < H; ++h)
            for (index_t n = 0; n < N; ++n)
                for (index_t p = 0; p < width / 2; ++p) {
                    const index_t row = kind < 4 ? ids[static_cast<std::size_t>(b * N + n)] : (one_row ? 0 : b) * N + n;
                    const auto at = static_cast<std::size_t>(row * (width / 2) + p);
                    const index_t first = interleave ? 2 * p : p, second = interleave ? 2 * p + 1 : p + width / 2;
                    const double real = x(b, h, n, first), imaginary = x(b, h, n, second);
                    out(b, h, n, first) = cos.at[at] * real - sin.at[at] * imaginary;
                    out(b, h, n, second) = sin.at[at] * real + cos.at[at] * imaginary;
                }
    c.floats("out", "output", in_rank(out, packed));
    c.expect(replay_rotary);
}

TEST(onnx, rotary_embedding_with_any_parameters) {
    dice d(2);
    for (int i = 0; i < 300 && !testing::Test::HasFailure(); ++i) expect_rotary(d);
}

}  // namespace
