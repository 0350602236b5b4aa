// Errors as values: no function of Krait throws, prints, exits or aborts across the API.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <variant>

#include <krait/export.h>

namespace krait {

/// What kind of failure a Status reports. The numbers are stable: the C API returns them.
enum class Code : int {
  ok = 0,
  invalid_argument = 1,  ///< the caller passed something that can never work
  not_found = 2,         ///< a file, tensor, device or name that does not exist
  unsupported = 3,       ///< valid, but no kernel, family or format here can do it
  corrupt = 4,           ///< a file contradicts itself or its format
  io = 5,                ///< the operating system failed to read or write
  out_of_memory = 6,     ///< host or device memory; states are left intact
  device_lost = 7,       ///< the device stopped answering
  internal = 8,          ///< a bug in Krait
};

/// The name of a code, such as "invalid_argument".
KRAIT_API std::string_view name(Code code);

/// Success, or a code with a message that says what was expected, what came and what to do.
class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(Code code, std::string message) : code_(code), message_(std::move(message)) {}

  bool ok() const { return code_ == Code::ok; }
  Code code() const { return code_; }
  const std::string& message() const { return message_; }

 private:
  Code code_ = Code::ok;
  std::string message_;
};

/// A T, or the Status that says why there is none. Check ok() before taking the value.
template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<1>, std::move(value)) {}
  Result(Status error) : state_(std::in_place_index<0>, std::move(error)) {}
  Result(Code code, std::string message)
      : state_(std::in_place_index<0>, Status(code, std::move(message))) {}

  bool ok() const { return state_.index() == 1; }
  explicit operator bool() const { return ok(); }

  /// The error, or an ok Status.
  Status status() const { return ok() ? Status() : *std::get_if<0>(&state_); }
  std::string message() const { return status().message(); }

  T& operator*() & { return *std::get_if<1>(&state_); }
  const T& operator*() const& { return *std::get_if<1>(&state_); }
  T&& operator*() && { return std::move(*std::get_if<1>(&state_)); }
  T* operator->() { return std::get_if<1>(&state_); }
  const T* operator->() const { return std::get_if<1>(&state_); }

 private:
  std::variant<Status, T> state_;
};

}  // namespace krait
