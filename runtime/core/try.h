// Shorthand for code that passes errors on.
#pragma once

#include <exception>
#include <new>
#include <sstream>
#include <string>

#include <krait/status.h>

namespace krait {

/// cat("T is ", 3) == "T is 3": the pieces of a message, one after the other.
template <class... Parts>
std::string cat(const Parts&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  return std::move(out).str();
}

/// The messages' first words: invalid(...) is Status(Code::invalid_argument, cat(...)).
template <class... Parts>
Status invalid(const Parts&... parts) {
  return Status(Code::invalid_argument, cat(parts...));
}
template <class... Parts>
Status corrupt(const Parts&... parts) {
  return Status(Code::corrupt, cat(parts...));
}
template <class... Parts>
Status unsupported(const Parts&... parts) {
  return Status(Code::unsupported, cat(parts...));
}
template <class... Parts>
Status not_found(const Parts&... parts) {
  return Status(Code::not_found, cat(parts...));
}

/// Runs `body` (returning a Status or Result) and turns what the standard library threw into one.
/// Every public entry point that allocates goes through this.
template <class Body>
auto guarded(Body&& body) noexcept -> decltype(body()) {
  try {
    return body();
  } catch (const std::bad_alloc&) {
    return Status(Code::out_of_memory, "out of host memory");
  } catch (const std::exception& e) {
    return Status(Code::internal, e.what());
  }
}

}  // namespace krait

#define KRAIT_CONCAT_(a, b) a##b
#define KRAIT_CONCAT(a, b) KRAIT_CONCAT_(a, b)

/// KRAIT_TRY(status_expression): returns from the function unless ok.
#define KRAIT_TRY(...)                                                          \
  do {                                                                          \
    if (::krait::Status status_ = (__VA_ARGS__); !status_.ok()) return status_; \
  } while (false)

/// KRAIT_ASSIGN(auto x, result_expression): x takes the value, or the function returns the error.
#define KRAIT_ASSIGN(declaration, ...) \
  KRAIT_ASSIGN_(KRAIT_CONCAT(result_, __LINE__), declaration, __VA_ARGS__)
#define KRAIT_ASSIGN_(temporary, declaration, ...) \
  auto temporary = (__VA_ARGS__);                  \
  if (!temporary.ok()) return temporary.status();  \
  declaration = std::move(*temporary)
