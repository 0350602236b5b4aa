// Uses the library through its installed headers alone, and crosses the shared library's border.
#include <cstdio>

#include <krait/status.h>
#include <krait/version.h>

int main() {
  const krait::Status status(krait::Code::corrupt, "planted");
  const krait::Result<int> result(status);
  if (result.ok() || result.message() != "planted" || name(result.status().code()) != "corrupt") {
    std::fputs("krait::Result does not keep its error\n", stderr);
    return 1;
  }
  std::printf("krait %d.%d\n", KRAIT_VERSION_MAJOR, KRAIT_VERSION_MINOR);
  return 0;
}
