#include "runtime/core/json.h"

#include <cmath>
#include <gtest/gtest.h>
#include <limits>
#include <string>

namespace krait {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

Json parsed(std::string_view text) {
  Result<Json> result = parse_json(text, "config.json");
  EXPECT_TRUE(result.ok()) << text << ": " << result.message();
  return result.ok() ? *result : Json();
}

/// Expects an error about the file whose message holds `part`.
void expect_refused(std::string_view text, std::string_view part) {
  Result<Json> result = parse_json(text, "config.json");
  ASSERT_FALSE(result.ok()) << text;
  EXPECT_EQ(result.status().code(), Code::corrupt);
  EXPECT_EQ(result.message().rfind("config.json: byte ", 0), 0u) << result.message();
  EXPECT_NE(result.message().find(part), std::string::npos) << result.message();
  EXPECT_LT(result.message().size(), 300u);
}

TEST(Json, ReadsEveryKindOfValue) {
  const Json value = parsed(R"({"a": [1, -2, 3.5, true, false, null], "b": {"c": "d"}, "e": []})");
  EXPECT_EQ(value, Json::parse(R"({"a":[1,-2,3.5,true,false,null],"b":{"c":"d"},"e":[]})"));
  EXPECT_TRUE(value["a"][0].is_number_integer());
  EXPECT_EQ(parsed("18446744073709551615").get<std::uint64_t>(), 18446744073709551615u);
  EXPECT_EQ(parsed(" \"x\" "), "x");
  EXPECT_EQ(parsed(R"("\u00e9\ud83d\ude00")"), "\u00e9\U0001f600");
}

TEST(Json, ReadsWhatPythonWritesForInfinityAndNaN) {
  const Json value =
      parsed(R"({"limit": [0.0, Infinity], "low":-Infinity, "nan":NaN, "after": [1, 2], "n": 7})");
  EXPECT_EQ(value["limit"][0], 0.0);
  EXPECT_EQ(value["limit"][1], kInfinity);
  EXPECT_EQ(value["low"], -kInfinity);
  EXPECT_TRUE(std::isnan(value["nan"].get<double>()));
  EXPECT_EQ(value["after"], Json({1, 2}));
  EXPECT_EQ(value["n"], 7);
  EXPECT_EQ(parsed("Infinity"), kInfinity);
  EXPECT_EQ(parsed("[0,NaN,0,-Infinity]")[3], -kInfinity);
}

TEST(Json, LeavesInfinityInStringsAlone) {
  const Json value = parsed(R"({"Infinity": "NaN", "a": "x\"Infinity", "b": "\\", "c": Infinity})");
  EXPECT_EQ(value["Infinity"], "NaN");
  EXPECT_EQ(value["a"], "x\"Infinity");
  EXPECT_EQ(value["b"], "\\");
  EXPECT_EQ(value["c"], kInfinity);
}

TEST(Json, RefusesWordsThatOnlyLookLikeInfinity) {
  for (const char* text : {"1Infinity", "-NaN", "+Infinity", "InfinityNaN", "Infinity1", "NaN.0",
                           "--Infinity", "infinity", "nan", "- Infinity", "Infinit"}) {
    expect_refused(text, "syntax error");
  }
}

TEST(Json, UnderstandsBothSpellingsOfInfinity) {
  EXPECT_EQ(number(parsed(R"({"__float__": "Infinity"})")), kInfinity);
  EXPECT_EQ(number(parsed(R"({"__float__": "-Infinity"})")), -kInfinity);
  EXPECT_TRUE(std::isnan(number(parsed(R"({"__float__": "NaN"})")).value_or(0)));
  EXPECT_EQ(number(parsed("Infinity")), kInfinity);
  EXPECT_EQ(number(parsed("3")), 3.0);
  EXPECT_EQ(number(parsed("-2.5")), -2.5);
  for (const char* text : {"\"3\"", "null", "[1]", "{}", R"({"__float__": "1"})",
                           R"({"__float__": 1})", R"({"__float__": "NaN", "x": 1})"}) {
    EXPECT_EQ(number(parsed(text)), std::nullopt) << text;
  }
}

TEST(Json, SaysWhereItWentWrong) {
  expect_refused("", "byte 0");
  expect_refused("{\"a\": 1,}", "byte 9");
  expect_refused("[1, 2", "byte 5");
  expect_refused("[1] x", "byte 5");
  expect_refused("{\"a\" x}", "byte 6");
  expect_refused("\"abc", "missing closing quote");
  expect_refused("\"\\ud800\"", "surrogate");
  expect_refused("\"a\nb\"", "control character");
  expect_refused("[NaN, Infinity, oops]", "byte 17");
}

TEST(Json, RefusesDuplicateKeys) {
  expect_refused(R"({"a": 1, "b": 2, "a": 3})", R"(byte 20: the key "a" occurs twice)");
  expect_refused(R"([{"a": {"x": 1, "\u0078": 2}}])", R"("x" occurs twice)");
  EXPECT_EQ(parsed(R"([{"a": 1}, {"a": 2}])").size(), 2u);
  const std::string name(1000000, 'k');
  expect_refused("{\"" + name + "\":1,\"" + name + "\":1}", "kkk\"... occurs twice");
}

TEST(Json, TellsWholeNumbers) {
  EXPECT_EQ(whole_number(parsed("7")), 7);
  EXPECT_EQ(whole_number(Json(7)), 7);
  EXPECT_EQ(whole_number(parsed("-7")), -7);
  EXPECT_EQ(whole_number(parsed("9223372036854775807")), 9223372036854775807);
  EXPECT_EQ(whole_number(parsed("-9223372036854775808")), std::numeric_limits<std::int64_t>::min());
  for (const char* text : {"9223372036854775808", "18446744073709551615", "18446744073709551616",
                           "7.0", "7e0", "\"7\"", "true", "null", "[7]", "NaN"}) {
    EXPECT_EQ(whole_number(parsed(text)), std::nullopt) << text;
  }
}

TEST(Json, ShowsNamesForMessages) {
  EXPECT_EQ(shown("backbone.norm_f"), "\"backbone.norm_f\"");
  EXPECT_EQ(shown("a\"b\n\x1b\u00e9"), "\"a\\\"b\\n\\u001b\\u00e9\"");
  EXPECT_EQ(shown("\xff"), "\"\\ufffd\"");
  EXPECT_EQ(shown(std::string(79, 'x') + "\u00e9"), "\"" + std::string(79, 'x') + "\\ufffd\"...");
}

TEST(Json, RefusesDepthWithoutRecursion) {
  const auto nested = [](std::size_t depth) {
    return std::string(depth, '[') + std::string(depth, ']');
  };
  EXPECT_TRUE(parsed(nested(kMaxJsonDepth)).is_array());
  expect_refused(nested(kMaxJsonDepth + 1), "byte 65: nested deeper than 64 levels");
  expect_refused(nested(1000000), "nested deeper than 64 levels");
  expect_refused(std::string(1000000, '['), "nested deeper than 64 levels");
  std::string objects;
  for (int i = 0; i < 1000000; ++i) objects += "{\"a\":";
  expect_refused(objects, "nested deeper than 64 levels");
}

TEST(Json, RefusesInvalidUtf8) {
  for (const char* bytes : {"\xff", "\xc0\x80", "\xe2\x82", "\xed\xa0\x80", "\xf5\x80\x80\x80"}) {
    expect_refused("[\"" + std::string(bytes) + "\"]", "UTF-8");
    expect_refused("{\"" + std::string(bytes) + "\": 1}", "UTF-8");
  }
  expect_refused("\xff", "syntax error");
}

TEST(Json, RefusesNumbersBeyondDouble) {
  expect_refused("1e999", "number overflow");
  expect_refused("-1e999", "number overflow");
  expect_refused("[1" + std::string(100000, '0') + ".0]", "number overflow");
  EXPECT_EQ(parsed("1e-999"), 0.0);
}

TEST(Json, ReadsZeroOnlyAsEscape) {
  EXPECT_EQ(parsed("\"\\u0000\""), std::string(1, '\0'));
  expect_refused(std::string("\"\0\"", 3), "byte 2: a zero byte");
  expect_refused(std::string("[1]\0[2]", 7), "byte 4: a zero byte");
}

}  // namespace
}  // namespace krait
