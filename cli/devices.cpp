#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include <krait/device.h>

namespace krait::cli {

int list_devices_table(bool json) {
  const std::vector<DeviceInfo> devices = list_devices();
  if (json) {
    nlohmann::json list = nlohmann::json::array();
    for (const DeviceInfo& device : devices) {
      list.push_back({{"name", device.name},
                      {"backend", device.backend},
                      {"description", device.description},
                      {"memory", device.memory}});
    }
    std::cout << nlohmann::json{{"devices", list}}.dump(2) << "\n";
    return 0;
  }
  for (const DeviceInfo& device : devices)
    std::cout << device.name << ": " << device.description << "\n";
  return 0;
}

void add_devices(CLI::App& app, Action& action) {
  CLI::App* command = app.add_subcommand("devices", "List the devices that can run models here");
  auto json = std::make_shared<bool>(false);
  command->add_flag("--json", *json, "Print JSON");
  command->callback([json, &action] { action = [json] { return list_devices_table(*json); }; });
}

}  // namespace krait::cli
