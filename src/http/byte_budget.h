// A limit on the bytes that many owners hold together, such as the bodies of all requests that are
// being received or wait for their handler.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <utility>

namespace wideep::http {

// Thread: any.
class ByteBudget {
 public:
  explicit ByteBudget(int64_t bytes_max) : bytes_max_(bytes_max) {}

  // False, and nothing taken, if less than that is left.
  bool try_take(int64_t bytes) {
    if (used_.fetch_add(bytes, std::memory_order_relaxed) + bytes <= bytes_max_) return true;
    give_back(bytes);
    return false;
  }

  void give_back(int64_t bytes) { used_.fetch_sub(bytes, std::memory_order_relaxed); }

  int64_t used() const { return used_.load(std::memory_order_relaxed); }

 private:
  const int64_t bytes_max_;
  std::atomic<int64_t> used_{0};
};

// What one owner holds of a budget; given back at its end.
class ByteCharge {
 public:
  explicit ByteCharge(std::shared_ptr<ByteBudget> budget) : budget_(std::move(budget)) {}

  ~ByteCharge() { budget_->give_back(bytes_); }

  ByteCharge(const ByteCharge&) = delete;
  ByteCharge& operator=(const ByteCharge&) = delete;

  // Makes it `bytes` in all; false, and nothing changed, if the budget has no room.
  bool grow_to(int64_t bytes) {
    if (bytes > bytes_ && !budget_->try_take(bytes - bytes_)) return false;
    if (bytes > bytes_) bytes_ = bytes;
    return true;
  }

 private:
  const std::shared_ptr<ByteBudget> budget_;  // shared by all owners
  int64_t bytes_ = 0;
};

}  // namespace wideep::http
