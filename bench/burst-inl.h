// One instruction over and over on operands in registers. In an unnamed namespace: each ISA level
// compiles its own.
#pragma once

namespace wideep::bench {
namespace {

// `kSteps` rounds of sum = step(sum, operand) on `kSums` independent sums; one step is
// `operations`. Returns the operations done.
template <typename Sum, int kSteps, int kSums, typename Operand, typename Step>
double burst(Operand operand, double operations, Step step) {
  Sum sums[kSums] = {};
  for (int i = 0; i < kSteps; ++i) {
    asm volatile("" : "+v"(operand));  // or it would all be computed once
#pragma unroll
    for (Sum& sum : sums)
      sum = step(sum, operand);
  }
  for (Sum& sum : sums)
    asm volatile("" ::"v"(sum));
  return double{kSteps} * kSums * operations;
}

}  // namespace
}  // namespace wideep::bench
