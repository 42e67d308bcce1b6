// Included last: the operations of a file round one by one, as those of the plain operators do, without fused multiply-add. So
// results are the same to the bit, and thresholds and ties fall the same way.
#pragma once

#ifdef __clang__
#pragma STDC FP_CONTRACT OFF
#else
#pragma GCC optimize("fp-contract=off")
#endif
