// 04: Eigen matrices in and out.
//
// An N x D matrix is one batch and one head, in either storage order. Blocks and maps work like matrices.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <heed/heed.hpp>

using namespace heed;
using matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

// softmax(q k^T / sqrt(D)) v in Eigen's own words, with all scores in memory.
Eigen::MatrixXf by_eigen(const auto& q, const auto& k, const auto& v) {
    Eigen::MatrixXf p = (q * k.transpose() / std::sqrt(float(q.cols()))).array().exp().matrix();
    return p.rowwise().sum().cwiseInverse().asDiagonal() * p * v;
}

int main() {
    std::srand(4);
    bool fine = true;
    const auto off = [](const auto& a, const auto& b) { return (a - b).cwiseAbs().maxCoeff(); };
    const auto report = [&](const char* what, float difference, float allowed) {
        std::printf("%-52s %.1e\n", what, double(difference));
        fine = fine && difference <= allowed;
    };

    // 1. One head. Matrices of Eigen's default order are column-major: heed reads any strides, and packs what it needs.
    const Eigen::MatrixXf q = Eigen::MatrixXf::Random(100, 48), k = Eigen::MatrixXf::Random(150, 48);
    const Eigen::MatrixXf v = Eigen::MatrixXf::Random(150, 20);
    Eigen::MatrixXf o(100, 20);
    attention(q, k, v, o);
    const Eigen::MatrixXf expected = by_eigen(q, k, v);
    report("one head, column-major", off(o, expected), 1e-5f);

    // 2. Keys and values stored as bf16: half the memory. Sums are still float.
    using bf16_matrix = Eigen::Matrix<bf16, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
    const bf16_matrix k16 = k.cast<bf16>(), v16 = v.cast<bf16>();
    attention(q, k16, v16, o);
    report("keys and values in bf16", off(o, expected), 1e-2f);

    // 3. A fused projection: each row of qkv holds the queries, keys and values of a token, H heads each. One head is a
    // block of columns, and no block is copied.
    const index_t N = 200, H = 4, D = 32;
    const matrix tokens_in = matrix::Random(N, H * D), weights = matrix::Random(H * D, 3 * H * D) * 0.2f;
    const matrix qkv = tokens_in * weights;
    matrix by_head(N, H * D), at_once(N, H * D);
    for (index_t h = 0; h < H; ++h)
        attention(qkv.middleCols(h * D, D), qkv.middleCols((H + h) * D, D), qkv.middleCols((2 * H + h) * D, D),
                  by_head.middleCols(h * D, D));
    const auto last = qkv.middleCols((H - 1) * D, D);
    report("a block of columns per head",
           off(by_head.rightCols(D), by_eigen(last, qkv.middleCols((2 * H - 1) * D, D), qkv.rightCols(D))), 1e-5f);

    // 4. The same memory as 3 H heads of a (b, n, h, d) tensor, cut along the head axis: all heads in one call, on two
    // threads. The bits are the same, however the work is divided.
    const auto all = tokens(qkv.data(), {1, N, 3 * H, D});
    threads pool(2);
    attention(slice(all, 1, {0, H}), slice(all, 1, {H, 2 * H}), slice(all, 1, {2 * H, 3 * H}),
              tokens(at_once.data(), {1, N, H, D}), on{pool});
    report("all heads in one call, against one by one", off(at_once, by_head), 0.0f);
    return fine ? 0 : 1;
}
