// Include this last. It turns fused multiply-add off, so that each operation rounds as in the plain operators: results are equal
// bit for bit, thresholds and ties included.
#pragma once

#ifdef __clang__
#pragma STDC FP_CONTRACT OFF
#else
#pragma GCC optimize("fp-contract=off")
#endif
