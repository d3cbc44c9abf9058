// All masks.
#pragma once

#include "area.hpp"
#include "mask_block.hpp"
#include "mask_patterns.hpp"
#include "mask_position.hpp"
#include "mask_segment.hpp"
#include "mask_slice.hpp"
#include "mask_stride.hpp"
#include "mask_view.hpp"
