#include "math/kernels.h"

#include "base/check.h"
#include "math/kernel_tables.h"

#include <array>

namespace wideep::math {
namespace {

using AddKernels = void (*)(Kernels& table);

// What each level adds to the one below it.
constexpr std::array<std::array<AddKernels, 2>, 5> kLevels = {{
    {scalar::add_gemm, scalar::add_elementwise},
    {avx2::add_gemm, avx2::add_elementwise},
    {avx512::add_gemm, avx512::add_elementwise},
    {avx512bf16::add_gemm, nullptr},
    {amx::add_gemm, nullptr},
}};

std::array<Kernels, kLevels.size()> make_tables() {
  std::array<Kernels, kLevels.size()> tables;
  for (size_t level = 0; level < tables.size(); ++level) {
    if (level > 0) tables[level] = tables[level - 1];
    tables[level].isa = static_cast<Isa>(level);
    for (const AddKernels add : kLevels[level]) {
      if (add != nullptr) add(tables[level]);
    }
  }
  return tables;
}

}  // namespace

const Kernels& kernels(Isa isa) {
  WD_CHECK(is_supported(isa));
  static const auto tables = make_tables();
  return tables[static_cast<size_t>(isa)];
}

const Kernels& reference_kernels() {
  return kernels(Isa::kScalar);
}

}  // namespace wideep::math
