// Every op × type × case on every device of this machine against the float64 reference, on the CPU
// with every instruction set, and a committed table of what is covered. A case lost, or gained
// without being written down, fails.
#include <cstdlib>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "ops/op.h"
#include "tests/helpers/variants.h"
#include <krait/conform.h>

namespace krait {
namespace {

using Table = nlohmann::json;  // [variant][op][types] = "11 pass, 2 unsupported"

const std::filesystem::path kFile = test::source_dir() / "tests/conformance/coverage.json";

Table read_table() {
  std::ifstream file(kFile);
  return file ? Table::parse(file) : Table::object();
}

struct Count {
  int pass = 0;
  int unsupported = 0;
  std::string text() const {
    return std::to_string(pass) + " pass" +
           (unsupported ? ", " + std::to_string(unsupported) + " unsupported" : "");
  }
};

/// One op on one variant, so that no test takes long, and ctest runs several at a time.
struct Rows {
  test::Variant variant;
  std::string op;
  std::string name() const { return op + " on " + variant.name(); }
};

void PrintTo(const Rows& rows, std::ostream* out) {
  *out << rows.name();
}

std::vector<Rows> all_rows() {
  std::vector<Rows> list;
  for (const test::Variant& variant : test::variants()) {
    for (const Op* op : all_ops()) {
      if (op->cases) list.push_back({variant, std::string(op->name)});
    }
  }
  return list;
}

/// Runs every case and counts verdicts by types; failures fail the test as they come.
Table coverage(const Rows& rows) {
  const test::ForceKernels forced(rows.variant);
  std::map<std::string, Count> counts;
  const auto report = [&](const ConformResult& result, std::int64_t) {
    const std::string what =
        rows.name() + " " + result.dtype + " " + result.case_name + " [" + result.kernel + "]";
    EXPECT_NE(result.verdict, Verdict::fail) << what << ": " << result.reason;
    EXPECT_TRUE(result.verdict != Verdict::unsupported || !result.reason.empty()) << what;
    // That the forced kernel ran, and not the one that is usually first.
    EXPECT_TRUE(result.kernel.empty() ||
                result.kernel.find(rows.variant.forced) != std::string::npos)
        << what;
    Count& count = counts[result.dtype];
    count.pass += result.verdict == Verdict::pass;
    count.unsupported += result.verdict == Verdict::unsupported;
  };
  EXPECT_TRUE(test::is_ok(conform({test::device(rows.variant.device)}, {.op = rows.op}, report)));
  Table table = Table::object();
  for (const auto& [types, count] : counts) table[types] = count.text();
  return table;
}

class Conformance : public testing::TestWithParam<Rows> {};

TEST_P(Conformance, EveryCasePassesAndNoneIsLost) {
  const auto& [variant, op] = GetParam();
  const Table now = coverage(GetParam());
  Table all = read_table();
  if (std::getenv("KRAIT_WRITE_COVERAGE")) {
    all[variant.name()][op] = now;
    std::ofstream(kFile) << all.dump(1) << "\n";
  }
  const Table written = all.value(variant.name(), Table::object()).value(op, Table::object());
  std::set<std::string> keys;
  for (const Table* table : {&now, &written}) {
    for (const auto& [types, count] : table->items()) keys.insert(types);
  }
  for (const std::string& types : keys) {
    EXPECT_EQ(now.value(types, "no cases"), written.value(types, "no cases"))
        << GetParam().name() << " " << types
        << ": tests/conformance/coverage.json says otherwise. If more is covered now, write it "
           "down: run conformance_tests with KRAIT_WRITE_COVERAGE=1";
  }
}

INSTANTIATE_TEST_SUITE_P(Every, Conformance, testing::ValuesIn(all_rows()),
                         [](const auto& info) { return test::test_name(info.param.name()); });

TEST(ConformanceTable, NoOpIsLost) {
  const Table written = read_table();
  EXPECT_FALSE(written.empty());
  for (const auto& [variant, ops] : written.items()) {
    for (const auto& [op, rows] : ops.items()) {
      EXPECT_TRUE(find_op(op) && find_op(op)->cases) << variant << " " << op;
    }
  }
}

/// The two that every machine has.
TEST(ConformanceDevices, CpuAndReferenceAreHere) {
  const std::vector<std::string> names = test::device_names();
  for (const char* name : {"cpu", "reference"}) {
    EXPECT_NE(std::find(names.begin(), names.end(), name), names.end()) << name;
  }
}

TEST(ConformanceDevices, TheReferencePassesEverything) {
  const Table written = read_table().value("reference", Table::object());
  EXPECT_FALSE(written.empty());
  for (const auto& [op, rows] : written.items()) {
    for (const auto& [types, count] : rows.items()) {
      EXPECT_EQ(count.get<std::string>().find("unsupported"), std::string::npos)
          << op << " " << types;
    }
  }
}

TEST(ConformanceOptions, OneOpAndOneCase) {
  int results = 0;
  const auto report = [&](const ConformResult& result, std::int64_t total) {
    EXPECT_EQ(result.op, "silu");
    EXPECT_EQ(result.case_name, "prime");
    EXPECT_EQ(result.device, "reference");
    EXPECT_EQ(result.kernel, "float64");
    EXPECT_EQ(result.verdict, Verdict::pass);
    EXPECT_LE(result.error, result.tolerance);
    EXPECT_EQ(total, 3);  // f32, f16, bf16
    ++results;
  };
  EXPECT_TRUE(test::is_ok(
      conform({test::device("reference")}, {.op = "silu", .case_name = "prime"}, report)));
  EXPECT_EQ(results, 3);
  for (const ConformOptions& options :
       {ConformOptions{"no such op", ""}, {"silu", "no such case"}}) {
    EXPECT_TRUE(test::is_error(conform({test::device("reference")}, options, report),
                               Code::not_found, "no conformance case is named"));
  }
}

}  // namespace
}  // namespace krait
