// libFuzzer: recurrences over shapes, strides, types, gates, forms, packed sequences and states, against the
// definition.
//
// Data come from seeds, so the bytes are all structure. Operands and scratch end where their allocations do, for ASan
// to see a step too far. Bad shapes must be refused by heed's exceptions, with the output untouched.
#include "recurrence_scene.hpp"

using namespace test;

namespace {

/// The kinds of recurrence. Each is compiled in three forms, which takes seconds: orders and packing take turns.
template <class T>
void run(decisions& d, scene& x, index_t kind) {
    if (kind < 8 || kind > 10) x.s.steps = 1;
    const auto data = data_of<T>(d, x);
    const packed side_by_side{std::span<const index_t>(x.offsets)};
    const auto with = [&](unsigned parts, const auto&... policies) { meet(d, x, data, parts, policies...); };
    if constexpr (!std::is_same_v<T, float>) return with(by_token | delta, data.token_gate(), data.delta_update());
    switch (kind) {
        case 0:
            return with(plain);
        case 1:
            return with(by_head | backwards, data.head_gate(), reversed{});
        case 2:
            return with(by_token | delta, data.token_gate(), data.delta_update());
        case 3:
            return with(by_channel | with_bonus, data.channel_gate(), data.bonus_read());
        case 4:
            return with(by_value | before, data.value_gate(), read_before{});
        case 5:
            return with(turning, data.complex_gate());
        case 6:
            return with(by_channel | ranked | backwards, data.channel_gate(), data.low_rank_update(), reversed{});
        case 7:
            return with(delta | all_at_once, data.delta_update(), non_causal{});
        case 8:
            return with(by_token | delta, data.token_gate(), data.householder_update());
        case 9:
            return with(by_channel | delta | before, data.channel_gate(), data.householder_update(), read_before{});
        case 10:
            return with(by_value | delta, data.value_gate(), data.householder_update(), side_by_side);
        default:
            return with(by_token, data.token_gate(), side_by_side);
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    decisions d(data, size);
    const index_t kind = d.below(12);
    scene x = any_scene(d);
    if (kind >= 10) put_in_one_row(d, x);
    switch (kind == 2 ? d.below(3) : 0) {
        case 0:
            run<float>(d, x, kind);
            break;
        case 1:
            run<double>(d, x, kind);
            break;
        default:
            run<bf16>(d, x, kind);
    }
    return 0;
}
