#include <cstdio>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include <krait/ops.h>

namespace krait::cli {
namespace {

/// "avx512, avx2"; `none` for an empty list.
std::string join(const std::vector<std::string>& list, std::string_view none = "") {
  std::string text;
  for (const std::string& entry : list) text += (text.empty() ? "" : ", ") + entry;
  return text.empty() ? std::string(none) : text;
}

/// The default as a person would write it in a graph; nothing if there is none.
nlohmann::json default_of(const OpAttribute& attribute) {
  if (attribute.choices.empty()) return attribute.value;
  if (attribute.value < 0) return nullptr;
  return attribute.choices[static_cast<std::size_t>(attribute.value)];
}

nlohmann::json json_of(const std::vector<OpOperand>& operands) {
  nlohmann::json list = nlohmann::json::array();
  for (const OpOperand& operand : operands) {
    list.push_back({{"name", operand.name},
                    {"dims", operand.dims},
                    {"role", operand.role},
                    {"optional", operand.optional}});
    if (!operand.only_with.empty()) list.back()["only_with"] = operand.only_with;
  }
  return list;
}

void print_json(const std::vector<OpInfo>& ops) {
  nlohmann::json list = nlohmann::json::array();
  for (const OpInfo& op : ops) {
    nlohmann::json attributes = nlohmann::json::array();
    for (const OpAttribute& attribute : op.attributes) {
      attributes.push_back({{"name", attribute.name},
                            {"default", default_of(attribute)},
                            {"choices", attribute.choices}});
    }
    nlohmann::json kernels = nlohmann::json::object();
    for (const OpKernels& entry : op.kernels) kernels[entry.backend] = entry.kernels;
    list.push_back({{"name", op.name},
                    {"summary", op.summary},
                    {"view", op.view},
                    {"inputs", json_of(op.inputs)},
                    {"outputs", json_of(op.outputs)},
                    {"attributes", attributes},
                    {"kernels", kernels}});
  }
  std::cout << nlohmann::json{{"ops", list}}.dump(2) << "\n";
}

/// The table of README.md: a row per op, a column per backend.
void print_markdown(const std::vector<OpInfo>& ops) {
  std::string head = "| Op | What it computes |", rule = "| --- | --- |";
  for (const OpKernels& entry : ops.front().kernels) {
    head += " " + entry.backend + " |";
    rule += " --- |";
  }
  std::cout << head << "\n" << rule << "\n";
  for (const OpInfo& op : ops) {
    std::cout << "| `" << op.name << "` | " << op.summary << " |";
    for (const OpKernels& entry : op.kernels)
      std::cout << " " << (op.view ? "a view" : join(entry.kernels, "–")) << " |";
    std::cout << "\n";
  }
}

void print_operands(std::string_view what, const std::vector<OpOperand>& operands) {
  for (const OpOperand& operand : operands) {
    std::printf("  %-7s %-10s [%s] %s%s\n", std::string(what).c_str(), operand.name.c_str(),
                operand.dims.c_str(), operand.role.c_str(),
                !operand.only_with.empty() ? (", only with " + operand.only_with).c_str()
                : operand.optional         ? ", optional"
                                           : "");
  }
}

void print_text(const std::vector<OpInfo>& ops) {
  for (const OpInfo& op : ops) {
    std::printf("%s: %s\n", op.name.c_str(), op.summary.c_str());
    print_operands("in", op.inputs);
    print_operands("out", op.outputs);
    for (const OpAttribute& attribute : op.attributes) {
      const nlohmann::json value = default_of(attribute);
      std::printf("  %-7s %-10s ", "attr", attribute.name.c_str());
      if (value.is_number()) std::printf("%g", value.get<double>());
      if (value.is_string()) std::printf("%s", value.get<std::string>().c_str());
      if (!attribute.choices.empty())
        std::printf("%s(%s)", value.is_null() ? "" : " ", join(attribute.choices).c_str());
      std::printf("\n");
    }
    for (const OpKernels& entry : op.kernels) {
      if (op.view) break;
      std::printf("  %-7s %-10s %s\n", "kernel", entry.backend.c_str(),
                  join(entry.kernels, "none").c_str());
    }
  }
}

}  // namespace

void add_ops(CLI::App& app, Action& action) {
  CLI::App* command =
      app.add_subcommand("ops", "List the ops, their operands, and the kernels of each backend");
  auto json = std::make_shared<bool>(false);
  auto markdown = std::make_shared<bool>(false);
  CLI::Option* as_json = command->add_flag("--json", *json, "Print JSON");
  command->add_flag("--markdown", *markdown, "Print the table of README.md")->excludes(as_json);
  command->callback([json, markdown, &action] {
    action = [json, markdown] {
      const std::vector<OpInfo> ops = list_ops();
      (*json ? print_json : *markdown ? print_markdown : print_text)(ops);
      return 0;
    };
  });
}

}  // namespace krait::cli
