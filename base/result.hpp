// result<T>: a value or an error. No exceptions cross a folder's border.
#pragma once

#include <cassert>
#include <optional>
#include <utility>
#include <variant>

#include "base/error.hpp"

namespace coppice {

// Holds a T or an error. Movable if T is; as thread-safe as T.
template <class T>
class [[nodiscard]] result {
 public:
  using value_type = T;

  result(T value) : state_(std::in_place_index<0>, std::move(value)) {}                   // NOLINT: implicit on purpose
  result(coppice::error failure) : state_(std::in_place_index<1>, std::move(failure)) {}  // NOLINT: implicit on purpose

  bool ok() const noexcept { return state_.index() == 0; }
  explicit operator bool() const noexcept { return ok(); }

  // REQUIRES: ok()
  T& value() & {
    assert(ok());
    return *std::get_if<0>(&state_);
  }
  const T& value() const& {
    assert(ok());
    return *std::get_if<0>(&state_);
  }
  T&& value() && {
    assert(ok());
    return std::move(*std::get_if<0>(&state_));
  }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T operator*() && { return std::move(*this).value(); }  // by value: what it is taken from is about to end
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

  // REQUIRES: !ok()
  const coppice::error& error() const& {
    assert(!ok());
    return *std::get_if<1>(&state_);
  }
  coppice::error&& error() && {
    assert(!ok());
    return std::move(*std::get_if<1>(&state_));
  }

 private:
  std::variant<T, coppice::error> state_;
};

// Success without a value, or an error.
template <>
class [[nodiscard]] result<void> {
 public:
  result() = default;
  result(coppice::error failure) : failure_(std::move(failure)) {}  // NOLINT: implicit on purpose

  bool ok() const noexcept { return !failure_.has_value(); }
  explicit operator bool() const noexcept { return ok(); }

  // REQUIRES: !ok()
  const coppice::error& error() const& {
    assert(!ok());
    return *failure_;
  }
  coppice::error&& error() && {
    assert(!ok());
    return std::move(*failure_);
  }

 private:
  std::optional<coppice::error> failure_;
};

// Returns the error of `expression` (a result<...>) from the enclosing function, if it holds one.
#define COPPICE_TRY(expression)                                                                       \
  do {                                                                                                \
    if (auto coppice_try_ = (expression); !coppice_try_.ok()) return std::move(coppice_try_).error(); \
  } while (false)

}  // namespace coppice
