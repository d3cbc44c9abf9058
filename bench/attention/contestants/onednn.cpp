// oneDNN: matmul, softmax, matmul over all heads, (G, H / G, N, M) scores. A mask is added in between.
#include <omp.h>

#include <dnnl.hpp>

#include "contestant.hpp"

namespace bench {
namespace {

using md = dnnl::memory::desc;
using dims = dnnl::memory::dims;

struct steps {
    dnnl::engine engine{dnnl::engine::kind::cpu, 0};
    dnnl::stream stream{engine};
    dnnl::matmul products, values;
    dnnl::softmax_v2_forward weights;
    dnnl::binary masking;  // as a post-op of the product it would run in reference loops
    std::unordered_map<int, dnnl::memory> of_products, of_masking, of_weights, of_values;
    std::vector<float> bias;
};

md row_major(const dims& shape, dnnl::memory::data_type type, bool transposed = false) {
    const auto order = transposed ? dnnl::memory::format_tag::abdc : dnnl::memory::format_tag::abcd;
    return md(shape, type, order);
}

job prepare(const problem& p, operands& x) {
    omp_set_num_threads(p.threads);  // a primitive is laid out for the threads there are when it is made
    const auto type = p.type == dtype::bf16 ? dnnl::memory::data_type::bf16 : dnnl::memory::data_type::f32;
    const auto f32 = dnnl::memory::data_type::f32;
    const dims::value_type G = p.G, R = p.H / p.G, N = p.N, M = p.M, D = p.D;
    const auto queries = row_major({G, R, N, D}, type), keys = row_major({G, 1, D, M}, type, true);
    const auto values = row_major({G, 1, M, D}, type), out = row_major({G, R, N, D}, type);
    const auto scores = row_major({G, R, N, M}, f32), weights = row_major({G, R, N, M}, type);
    const auto bias = row_major({1, 1, N, M}, f32);

    auto s = std::make_shared<steps>();
    const auto memory = [&](const md& desc, void* data) { return dnnl::memory(desc, s->engine, data); };
    const dnnl::memory logits(scores, s->engine);
    // Weights of the storage type need a buffer of their own only where it is not float.
    const dnnl::memory probabilities = p.type == dtype::f32 ? logits : dnnl::memory(weights, s->engine);

    dnnl::primitive_attr scaled;
    scaled.set_output_scales(0, {static_cast<float>(p.scale())});
    s->products = dnnl::matmul({{queries, keys, scores}, scaled, s->engine});
    s->weights = dnnl::softmax_v2_forward(
        {{dnnl::prop_kind::forward_inference, dnnl::algorithm::softmax_accurate, scores, weights, 3}, s->engine});
    s->values = dnnl::matmul({{weights, values, out}, s->engine});

    s->of_products = {{DNNL_ARG_SRC, memory(queries, x.q.as<char>().data)},
                      {DNNL_ARG_WEIGHTS, memory(keys, x.k.as<char>().data)},
                      {DNNL_ARG_DST, logits}};
    if (const std::uint8_t* visible = x.dense(p)) {
        for (index_t i = 0; i < N * M; ++i)
            s->bias.push_back(visible[i] ? 0.0f : -std::numeric_limits<float>::infinity());
        s->masking = dnnl::binary({{dnnl::algorithm::binary_add, scores, bias, scores}, s->engine});
        s->of_masking = {
            {DNNL_ARG_SRC_0, logits}, {DNNL_ARG_SRC_1, memory(bias, s->bias.data())}, {DNNL_ARG_DST, logits}};
    }
    s->of_weights = {{DNNL_ARG_SRC, logits}, {DNNL_ARG_DST, probabilities}};
    s->of_values = {{DNNL_ARG_SRC, probabilities},
                    {DNNL_ARG_WEIGHTS, memory(values, x.v.as<char>().data)},
                    {DNNL_ARG_DST, memory(out, x.o.as<char>().data)}};
    return [s, workers = p.threads] {
        omp_set_num_threads(workers);
        s->products.execute(s->stream, s->of_products);
        if (!s->bias.empty()) s->masking.execute(s->stream, s->of_masking);
        s->weights.execute(s->stream, s->of_weights);
        s->values.execute(s->stream, s->of_values);
        s->stream.wait();
    };
}

bool able(const problem& p) {
    return p.plain() && (p.type == dtype::f32 || p.type == dtype::bf16) && p.H * p.N * p.M <= index_t(8) * 4096 * 4096;
}

}  // namespace

extern const contestant onednn_contestant{"onednn", able, prepare};

}  // namespace bench
