#include "math/kernels.h"

#include "base/check.h"
#include "math/kernel_tables.h"

#include <array>

namespace wideep::math {
namespace {

Kernels scalar_table() {
  Kernels table;
  table.isa = Isa::kScalar;
  scalar::add_gemm(table);
  scalar::add_elementwise(table);
  return table;
}

// The table of every level, each built on the one below it.
std::array<Kernels, 5> make_tables() {
  std::array<Kernels, 5> tables;
  tables[0] = scalar_table();
  for (size_t level = 1; level < tables.size(); ++level) {
    tables[level] = tables[level - 1];
    tables[level].isa = static_cast<Isa>(level);
    if (tables[level].isa == Isa::kAvx2) avx2::add_elementwise(tables[level]);
    if (tables[level].isa == Isa::kAvx512) avx512::add_elementwise(tables[level]);
  }
  return tables;
}

}  // namespace

const Kernels& kernels(Isa isa) {
  WD_CHECK(is_supported(isa));
  static const std::array<Kernels, 5> tables = make_tables();
  return tables[static_cast<size_t>(isa)];
}

const Kernels& reference_kernels() {
  return kernels(Isa::kScalar);
}

}  // namespace wideep::math
