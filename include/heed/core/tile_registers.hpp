// Leave to use the tile registers of AMX, which Linux gives to a process that asks.
#pragma once

#include "config.hpp"

#if defined(HEED_AMX)
#include <sys/syscall.h>
#include <unistd.h>

namespace heed::inline HEED_ABI {

/// Whether this process may use the tile registers; asks for them when first called.
inline bool amx_granted() noexcept {
    constexpr long request = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    static const bool granted = ::syscall(SYS_arch_prctl, request, tile_data) == 0;
    return granted;
}

}  // namespace heed::inline HEED_ABI
#endif
