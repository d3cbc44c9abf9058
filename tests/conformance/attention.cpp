// ONNX Attention: the element type of a case. One file a type, so that they compile side by side.
#include "replay.hpp"

namespace conformance {

template <class T>
double replay_attention_of(golden_case& g, engine by);
extern template double replay_attention_of<float>(golden_case&, engine);
extern template double replay_attention_of<double>(golden_case&, engine);
extern template double replay_attention_of<f16>(golden_case&, engine);
extern template double replay_attention_of<bf16>(golden_case&, engine);

double replay_attention(golden_case& c, engine by) {
    const std::string type = c.needed("Q").type, k = c.needed("K").type, v = c.needed("V").type;
    // Operands of different types are widened, without loss, to the wider arithmetic.
    const bool one_type = type == k && type == v;
    const bool wide = type == "float64" || k == "float64" || v == "float64";
    return with_type(one_type ? type
                     : wide   ? "float64"
                              : "float32",
                     [&](auto zero) { return replay_attention_of<decltype(zero)>(c, by); });
}

}  // namespace conformance
