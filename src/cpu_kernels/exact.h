// Include this file last. It turns off fused multiply-add, so that each operation rounds like in the plain operators. Results are
// bit-identical to theirs, including thresholds and ties.
#pragma once

#ifdef __clang__
#pragma STDC FP_CONTRACT OFF
#else
#pragma GCC optimize("fp-contract=off")
#endif
