#include "recurrence_engines.hpp"

template void conformance::run_recurrence(recurrence_call<heed::bf16>&, engine);
