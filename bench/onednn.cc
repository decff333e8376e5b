#include "onednn.h"

#ifdef WIDEEP_BENCH_ONEDNN
#include <dnnl.hpp>

#include <cstring>
#include <memory>
#include <string_view>

namespace wideep::bench {
namespace {

struct Product {
  dnnl::engine engine{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream{engine};
  dnnl::matmul matmul;
  std::vector<dnnl::memory> weights;
  dnnl::memory rows;
  dnnl::memory out;
  size_t next = 0;

  Product(OnednnType type, int64_t m, int64_t n, int64_t k, int copies) {
    using Type = dnnl::memory::data_type;
    using Tag = dnnl::memory::format_tag;
    const bool whole = type == OnednnType::kInt8;
    const dnnl::memory::desc x({m, k}, whole ? Type::u8 : Type::bf16, Tag::ab);
    const dnnl::memory::desc any({k, n}, whole ? Type::s8 : Type::bf16, Tag::any);
    const dnnl::memory::desc y({m, n}, Type::f32, Tag::ab);
    const dnnl::matmul::primitive_desc description({x, any, y}, engine);
    matmul = dnnl::matmul(description);
    rows = dnnl::memory(x, engine);
    out = dnnl::memory(y, engine);
    fill(rows);
    for (int i = 0; i < copies; ++i) {
      weights.emplace_back(description.weights_desc(), engine);
      fill(weights.back());
    }
  }

  static void fill(dnnl::memory& memory) {
    std::memset(memory.get_data_handle(), 0x3C, memory.get_desc().get_size());
  }

  void run() {
    matmul.execute(stream, {{DNNL_ARG_SRC, rows},
                            {DNNL_ARG_WEIGHTS, weights[next++ % weights.size()]},
                            {DNNL_ARG_DST, out}});
    stream.wait();
  }
};

}  // namespace

std::function<void()> onednn_product(OnednnType type, int64_t m, int64_t n, int64_t k, int copies) {
  auto product = std::make_shared<Product>(type, m, n, k, copies);
  return [product] { product->run(); };
}

void onednn_cap(const char* isa) {
  const std::string_view text = isa;
  if (text == "amx") return;
  dnnl::set_max_cpu_isa(text == "avx512bf16" ? dnnl::cpu_isa::avx512_core_bf16
                        : text == "avx512"   ? dnnl::cpu_isa::avx512_core_vnni
                                             : dnnl::cpu_isa::avx2);
}

}  // namespace wideep::bench

#else

namespace wideep::bench {

std::function<void()> onednn_product(OnednnType, int64_t, int64_t, int64_t, int) {
  return {};
}

void onednn_cap(const char*) {}

}  // namespace wideep::bench

#endif
