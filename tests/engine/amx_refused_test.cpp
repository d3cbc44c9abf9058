// Attention of bf16 where the system refuses the tile registers that the program was compiled for: the same within the rule.
#include <heed/heed.hpp>

#include "compare.hpp"
#include "random.hpp"

#if defined(HEED_AMX)
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>

#include <cstddef>
#include <cstdlib>

using namespace test;

namespace {

/// From here on this process is refused what it asks for by arch_prctl.
bool refuse() {
    sock_filter program[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_arch_prctl, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const sock_fprog filter{static_cast<unsigned short>(std::size(program)), program};
    return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

[[noreturn]] void attend_refused() {
    if (!refuse()) std::_Exit(2);
    if (amx_granted()) std::_Exit(3);
    for (const auto& [N, M, D, E] : {std::array<index_t, 4>{70, 90, 64, 40}, {33, 33, 31, 17}}) {
        const auto q = normal<bf16>({1, 2, N, D}, 1), k = normal<bf16>({1, 1, M, D}, 2), v = normal<bf16>({1, 1, M, E}, 3);
        tensor<bf16> o({1, 2, N, E});
        attention(q, k, v, o, causal{});
        const auto shift = M - N;
        if (!attends(o, q, k, v, [shift](auto real) {
                ref::options<decltype(real)> with;
                with.visible = [shift](index_t, index_t, index_t row, index_t, index_t j) { return j <= row + shift; };
                return with;
            }, {2, 0x1p-7}))
            std::_Exit(4);
    }
    std::_Exit(0);
}

TEST(amx_refused, bf16_is_met_in_pairs) {
    testing::GTEST_FLAG(death_test_style) = "threadsafe";
    EXPECT_EXIT(attend_refused(), testing::ExitedWithCode(0), "");
}

}  // namespace
#endif
