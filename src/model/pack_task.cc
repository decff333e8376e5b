#include "model/pack_task.h"

#include "base/check.h"
#include "base/hash.h"

#include <cstring>

namespace wideep::model {
namespace {

constexpr uint64_t kBlobMagic = 0x31424F4C42574457;  // "WDWBLOB1"

// All values of a matrix in f32.
void decode(const math::SourceMatrix& matrix, std::vector<float>& out) {
  out.resize(static_cast<size_t>(matrix.n * matrix.k));
  for (int64_t row = 0; row < matrix.n; ++row) {
    for (int64_t col = 0; col < matrix.k; ++col)
      out[static_cast<size_t>(row * matrix.k + col)] = matrix.at(row, col);
  }
}

math::SourceMatrix f32_matrix(const float* data, int64_t n, int64_t k) {
  return {.dtype = math::SourceMatrix::Dtype::kF32,
          .n = n,
          .k = k,
          .data = reinterpret_cast<const std::byte*>(data)};
}

}  // namespace

Status Packer::run(const PackTask& task, std::span<std::byte> out) {
  switch (task.kind) {
    case PackTask::Kind::kPanels:
      return pack_panels(task, out);
    case PackTask::Kind::kGateUp:
      return pack_gate_up(task, task.rows, out);
    case PackTask::Kind::kHeads:
      return pack_heads(task, out);
    case PackTask::Kind::kExpert:
      return pack_expert(task, out);
    case PackTask::Kind::kFloats:
      return copy_floats(task, out);
    case PackTask::Kind::kRows:
      return copy_rows(task, out);
  }
  return {};
}

Status Packer::pack_panels(const PackTask& task, std::span<std::byte> out) {
  WD_ASSIGN_OR_RETURN(const math::SourceMatrix matrix,
                      reader_.read(task.sources.front(), task.rows));
  math::pack(matrix, task.format, out);
  return {};
}

Status Packer::pack_gate_up(const PackTask& task, RowRange rows, std::span<std::byte> out) {
  WD_ASSIGN_OR_RETURN(const math::SourceMatrix gate, reader_.read(task.sources[0], rows));
  WD_ASSIGN_OR_RETURN(const math::SourceMatrix up, second_reader_.read(task.sources[1], rows));
  math::pack_gate_up(gate, up, task.format, out);
  return {};
}

// kv_b [heads][nope + v][rank]: the first `nope` rows of a head are W_UK, the next `v` rows W_UV.
Status Packer::pack_heads(const PackTask& task, std::span<std::byte> out) {
  WD_ASSIGN_OR_RETURN(const math::SourceMatrix kv_b, reader_.read(task.sources.front(), task.rows));
  const int64_t nope = shapes_.nope;
  const int64_t v = shapes_.v;
  const int64_t rank = kv_b.k;
  decode(kv_b, floats_);
  transposed_.resize(static_cast<size_t>(rank * nope));
  const auto pack_next = [&](const math::SourceMatrix& matrix) {
    const auto bytes = static_cast<size_t>(math::packed_bytes(task.format, matrix.n, matrix.k));
    math::pack(matrix, task.format, out.first(bytes));
    out = out.subspan(bytes);
  };
  const auto w_uk = [&](int64_t head) { return floats_.data() + head * (nope + v) * rank; };
  for (int64_t h = 0; h < shapes_.num_heads; ++h) {
    for (int64_t d = 0; d < nope; ++d) {
      for (int64_t c = 0; c < rank; ++c)
        transposed_[static_cast<size_t>(c * nope + d)] = w_uk(h)[d * rank + c];
    }
    pack_next(f32_matrix(transposed_.data(), rank, nope));
  }
  for (int64_t h = 0; h < shapes_.num_heads; ++h)
    pack_next(f32_matrix(w_uk(h) + nope * rank, v, rank));
  for (int64_t h = 0; h < shapes_.num_heads && shapes_.expanded_prompts; ++h)
    pack_next(f32_matrix(w_uk(h), nope, rank));
  WD_CHECK(out.empty());
  return {};
}

Status Packer::pack_expert(const PackTask& task, std::span<std::byte> out) {
  const TensorSource& gate = task.sources[0];
  const TensorSource& down = task.sources[2];
  const std::span<std::byte> payload = out.subspan(sizeof(ExpertBlobHeader));
  const auto gate_up_bytes =
      static_cast<size_t>(math::packed_gate_up_bytes(task.format, gate.rows, gate.cols));
  WD_TRY(pack_gate_up(task, {0, gate.rows}, payload.first(gate_up_bytes)));
  WD_ASSIGN_OR_RETURN(const math::SourceMatrix matrix, reader_.read(down, {0, down.rows}));
  math::pack(matrix, task.format, payload.subspan(gate_up_bytes));
  const ExpertBlobHeader header{.magic = kBlobMagic,
                                .layer = static_cast<int32_t>(task.layer),
                                .expert = static_cast<int32_t>(task.expert),
                                .layout = shapes_.expert_layout,
                                .checksum = xxh64(payload),
                                .bytes = static_cast<int64_t>(payload.size())};
  std::memcpy(out.data(), &header, sizeof header);
  return {};
}

Status Packer::copy_floats(const PackTask& task, std::span<std::byte> out) {
  WD_ASSIGN_OR_RETURN(const math::SourceMatrix vector,
                      reader_.read(task.sources.front(), task.rows));
  decode(vector, floats_);
  WD_CHECK(floats_.size() * sizeof(float) == out.size());
  std::memcpy(out.data(), floats_.data(), out.size());
  return {};
}

Status Packer::copy_rows(const PackTask& task, std::span<std::byte> out) {
  WD_ASSIGN_OR_RETURN(const math::SourceMatrix rows, reader_.read(task.sources.front(), task.rows));
  if (task.format == math::WeightFormat::kBf16) {
    WD_CHECK(rows.dtype == math::SourceMatrix::Dtype::kBf16);
    std::memcpy(out.data(), rows.data, out.size());
    return {};
  }
  decode(rows, floats_);
  WD_CHECK(floats_.size() * sizeof(float) == out.size());
  std::memcpy(out.data(), floats_.data(), out.size());
  return {};
}

Status check_expert_blob(std::span<const std::byte> blob,
                         int64_t layer,
                         int64_t expert,
                         uint64_t layout) {
  ExpertBlobHeader header;
  const auto broken = [&](std::string_view what) {
    return error(ErrorCode::kDataLoss, "expert {} of layer {}: {}", expert, layer, what);
  };
  if (blob.size() < sizeof header) return broken("the blob is too short");
  std::memcpy(&header, blob.data(), sizeof header);
  const std::span<const std::byte> payload = blob.subspan(sizeof header);
  if (header.magic != kBlobMagic) return broken("no expert blob");
  if (header.layer != layer || header.expert != expert) return broken("another expert's blob");
  if (header.layout != layout) return broken("another layout");
  if (header.bytes != static_cast<int64_t>(payload.size())) return broken("another size");
  if (header.checksum != xxh64(payload)) return broken("the checksum differs");
  return {};
}

}  // namespace wideep::model
