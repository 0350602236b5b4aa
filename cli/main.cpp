// krait: run, check and measure Mamba models. Exit codes: 0 success, 1 a negative verdict (verify,
// conform), 2 an error.
#include <cstdio>
#include <exception>
#include <string>

#include "cli/commands.h"
#include <krait/version.h>

#define KRAIT_TEXT_(x) #x
#define KRAIT_TEXT(x) KRAIT_TEXT_(x)

namespace krait::cli {
namespace {

int run(int argc, char** argv) {
  CLI::App app{"Krait: a portable compute runtime for Mamba state-space models", "krait"};
  app.set_version_flag("--version", "krait " KRAIT_TEXT(KRAIT_VERSION_MAJOR) "." KRAIT_TEXT(
                                        KRAIT_VERSION_MINOR) "." KRAIT_TEXT(KRAIT_VERSION_PATCH));
  bool list_devices = false;
  app.add_flag("--list-devices", list_devices, "Same as the command `devices`");
  Action action;
  add_generate(app, action);
  add_devices(app, action);
  add_inspect(app, action);
  add_verify(app, action);
  add_conform(app, action);
  add_bench(app, action);
  add_perplexity(app, action);
  add_quantize(app, action);
  add_ops(app, action);
  app.failure_message([](const CLI::App*, const CLI::Error& error) {
    return std::string("krait: ") + error.what() + "; see --help\n";
  });
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  if (action) return action();
  if (list_devices) return list_devices_table(false);
  std::fputs(app.help().c_str(), stderr);
  return 2;
}

}  // namespace
}  // namespace krait::cli

int main(int argc, char** argv) {
  try {
    return krait::cli::run(argc, argv);
  } catch (const std::exception& error) {  // what the standard library throws, such as no memory
    std::fprintf(stderr, "krait: %s\n", error.what());
  } catch (...) {
    std::fputs("krait: something failed and did not say what\n", stderr);
  }
  return 2;
}
