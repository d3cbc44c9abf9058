// All rules of eviction: statistics in, the ascending indices for cache.keep(b, g, kept) out.
#pragma once

#include "evict_mass.hpp"
#include "evict_memory.hpp"
#include "evict_norm.hpp"
#include "evict_select.hpp"
#include "evict_types.hpp"
#include "evict_visual.hpp"
#include "evict_window.hpp"
