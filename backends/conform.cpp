#include <algorithm>
#include <cmath>
#include <limits>

#include "backends/backend.h"
#include "ops/case.h"
#include "runtime/core/try.h"
#include <krait/conform.h>

namespace krait {
namespace {

constexpr DType kActivations[] = {DType::f32, DType::f16, DType::bf16};
constexpr DType kWeights[] = {DType::f32,  DType::f16,  DType::bf16, DType::q8_0,
                              DType::q4_0, DType::q4_1, DType::q5_0, DType::q5_1,
                              DType::q4_k, DType::q5_k, DType::q6_k};

bool has_activation(const Op& op) {
  for (const Input& input : op.inputs) {
    if (input.role == Role::activation) return true;
  }
  return false;
}

/// Every combination of activation and weight types that an op can be called with; `linear`, whose
/// kernels make use of it, once more with the permission to round.
std::vector<CaseTypes> type_combinations(const Op& op) {
  std::vector<CaseTypes> list;
  for (const DType activation : kActivations) {
    if (!has_activation(op) && activation != DType::f32) continue;
    for (const DType weight : kWeights) {
      if (!has_weight(op) && weight != DType::f32) continue;
      list.push_back({activation, weight});
      if (&op == &linear_op) list.push_back({activation, weight, true});
    }
  }
  return list;
}

/// A call that must be refused: is it, and with the right words?
void run_error_case(const Op& op, const Case& c, const CaseTypes& types, ConformResult& result) {
  const Result<HostCall> made = HostCall::make(op, c, types);
  const std::string message = made.ok() ? check(made->call).message() : made.message();
  if (message.find(c.error) != std::string::npos) {
    result.verdict = Verdict::pass;
  } else {
    result.reason = "expected the error \"" + c.error + "\", got " +
                    (message.empty() ? "none" : "\"" + message + "\"");
  }
}

/// Runs the call on `device`, on a fresh copy of its operands, and compares with `want`.
void run_case(const Op& op, const Case& c, const CaseTypes& types,
              const std::vector<std::vector<double>>& want, Device& device, ConformResult& result) {
  const Result<HostCall> made = HostCall::make(op, c, types);
  if (!made.ok()) {
    result.reason = made.message();
    return;
  }
  const Status ran = run_eager(made->call, device, &result.kernel);
  if (!ran.ok()) {
    result.verdict = ran.code() == Code::unsupported ? Verdict::unsupported : Verdict::fail;
    result.reason = ran.message();
    return;
  }
  if (const Status sentinels = made->check_sentinels(); !sentinels.ok()) {
    result.reason = sentinels.message();
    return;
  }
  result.verdict = Verdict::pass;
  double worst = -1;
  for (std::size_t i = 0; i < op.outputs.size(); ++i) {
    if (!made->call.outputs[i]) continue;
    const double error = relative_error(made->output(static_cast<int>(i)), want[i]);
    const double allowed = tolerance(made->call, static_cast<int>(i));
    const double ratio =
        error == 0 ? 0 : error / std::max(allowed, std::numeric_limits<double>::min());
    if (ratio <= worst) continue;
    worst = ratio;
    result.error = error;
    result.tolerance = allowed;
    if (error <= allowed) continue;
    result.verdict = Verdict::fail;
    result.reason = cat(op.outputs[i].name, ": error ", error, " is beyond ", allowed,
                        "; again with: krait conform --device ", result.device, " --op ", op.name,
                        " --case ", c.name);
  }
}

}  // namespace

std::string_view name(Verdict verdict) {
  switch (verdict) {
    case Verdict::pass:
      return "pass";
    case Verdict::fail:
      return "fail";
    case Verdict::unsupported:
      return "unsupported";
  }
  return "";
}

Status conform(const std::vector<std::shared_ptr<Device>>& devices, const ConformOptions& options,
               const std::function<void(const ConformResult&, std::int64_t total)>& report) {
  return guarded([&]() -> Status {
    struct Item {
      const Op* op;
      CaseTypes types;
      Case c;
    };
    std::vector<Item> items;
    for (const Op* op : all_ops()) {
      if (!op->cases || (!options.op.empty() && op->name != options.op)) continue;
      for (const CaseTypes& types : type_combinations(*op)) {
        for (Case& c : op->cases()) {
          const bool wanted = options.case_name.empty() || c.name == options.case_name;
          if (wanted && can_exist(*op, c, types)) {
            items.push_back({op, types, std::move(c)});
          }
        }
      }
    }
    if (items.empty()) {
      return not_found("no conformance case is named ", options.op,
                       options.case_name.empty() ? "" : " ", options.case_name);
    }
    const auto total = static_cast<std::int64_t>(items.size() * devices.size());
    for (const Item& item : items) {
      std::vector<std::vector<double>> want;
      if (item.c.error.empty()) {
        KRAIT_ASSIGN(const HostCall host, HostCall::make(*item.op, item.c, item.types));
        want = host.reference();
        // What the outputs cannot hold is not an error: float16 overflows to infinity.
        for (std::size_t i = 0; i < want.size(); ++i) {
          if (!host.call.outputs[i] || host.call.outputs[i].dtype != DType::f16) continue;
          for (double& value : want[i]) {
            if (std::abs(value) >= 65520)
              value = std::copysign(std::numeric_limits<double>::infinity(), value);
          }
        }
      }
      for (const std::shared_ptr<Device>& device : devices) {
        ConformResult result;
        result.op = item.op->name;
        result.device = device->info().name;
        result.dtype = to_string(*item.op, item.types);
        result.case_name = item.c.name;
        if (item.c.error.empty()) {
          run_case(*item.op, item.c, item.types, want, *device, result);
        } else {
          run_error_case(*item.op, item.c, item.types, result);
        }
        report(result, total);
      }
    }
    return {};
  });
}

}  // namespace krait
