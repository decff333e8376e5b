// oneDNN's matrix product with weights in the layout it likes best: the yardstick for single
// products, one thread. Without the library nothing is made.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

namespace wideep::bench {

// What is multiplied, into f32: bf16, or u8 rows by s8 weights, its fastest pair on VNNI.
enum class OnednnType { kBf16, kInt8 };

// Each call multiplies m rows by the next of `copies` weight matrices [n, k]. Empty if oneDNN is
// missing. `isa`: "avx2", "avx512", "avx512bf16", "amx" caps what it may use (first call decides).
std::function<void()> onednn_product(OnednnType type, int64_t m, int64_t n, int64_t k, int copies);
void onednn_cap(const char* isa);

}  // namespace wideep::bench
