// The weights of one model on one device: packed once per layout, constants computed once.
#include "runtime/plan/weight_store.h"

#include <cmath>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "runtime/core/try.h"
#include "tests/helpers/devices.h"
#include "tests/helpers/far_device.h"
#include "tests/helpers/graphs.h"

namespace krait {
namespace {

using test::is_error;
using test::is_ok;
using test::must;

/// Weights of float32 that count how often they are read and released.
class CountingSource final : public WeightSource {
 public:
  explicit CountingSource(std::map<std::string, std::vector<float>> tensors)
      : tensors_(std::move(tensors)) {}
  Result<TensorView> find(std::string_view name) const override {
    const auto found = tensors_.find(std::string(name));
    if (found == tensors_.end()) return Status(Code::not_found, "no such weight");
    ++reads[found->first];
    auto* data = const_cast<float*>(found->second.data());
    return dense_view(data, DType::f32, {static_cast<std::int64_t>(found->second.size())});
  }
  void release(std::string_view name) const override { ++releases[std::string(name)]; }

  void release_part(std::string_view, std::int64_t offset, std::int64_t bytes) const override {
    parts.emplace_back(offset, bytes);
  }

  mutable std::map<std::string, int> reads, releases;
  mutable std::vector<std::pair<std::int64_t, std::int64_t>> parts;

 private:
  std::map<std::string, std::vector<float>> tensors_;
};

const WeightLayout kReversed{
    .name = "reversed",
    .bytes = [](const TensorView& stored) { return stored.elements() * 4; },
    .view =
        [](const TensorView& stored) { return dense_view(nullptr, DType::f32, shape_of(stored)); },
    .pack =
        [](const TensorView& stored, std::byte* packed) {
          const std::int64_t count = stored.elements();
          for (std::int64_t i = 0; i < count; ++i) {
            reinterpret_cast<float*>(packed)[i] = stored.as<float>()[count - 1 - i];
          }
        },
};

class Store : public testing::Test {
 protected:
  void make(const std::string& text, std::shared_ptr<Device> device = test::device("reference")) {
    graph_ = std::make_shared<const ir::Graph>(must(ir::parse(text)));
    store_ = std::make_unique<WeightStore>(graph_, source_, std::move(device));
  }
  /// The first result of node `n`.
  ir::Id result(std::size_t n, std::size_t output = 0) const {
    return graph_->nodes[n].outputs[output];
  }
  std::vector<float> floats(ir::Id id, const WeightLayout* layout = nullptr) {
    const TensorView view = must(store_->get(id, layout));
    EXPECT_EQ(view.dtype, DType::f32);
    EXPECT_TRUE(is_dense(view));
    return {view.as<float>(), view.as<float>() + view.elements()};
  }

  std::shared_ptr<CountingSource> source_ = std::make_shared<CountingSource>(
      std::map<std::string, std::vector<float>>{{"a", {1, 2, 3, 4, 5, 6}},
                                                {"b", {10, 20, 30, 40, 50, 60}},
                                                {"neg(a)", {7, 7, 7, 7, 7, 7}}});
  std::shared_ptr<const ir::Graph> graph_;
  std::unique_ptr<WeightStore> store_;
};

using Floats = std::vector<float>;

TEST_F(Store, AWeightAsStoredIsTheSourcesOwnMemory) {
  make("graph g {\n  weight a: f32[2, 3]\n}\n");
  const TensorView view = must(store_->get(0, nullptr));
  EXPECT_EQ(view.memory, must(source_->find("a")).memory);
  EXPECT_EQ(to_string(shape_of(view)), "[2, 3]") << "the graph's shape, not the file's";
  EXPECT_EQ(store_->allocated_bytes(), 0);
  EXPECT_EQ(source_->releases["a"], 0);
}

// Rows of float32 as they are, packed in parts.
const WeightLayout kRows{
    .name = "rows",
    .bytes = [](const TensorView& stored) { return stored.elements() * 4; },
    .view =
        [](const TensorView& stored) { return dense_view(nullptr, DType::f32, shape_of(stored)); },
    .pack = [](const TensorView&, std::byte*) { FAIL() << "the parts do"; },
    .part_rows = 2,
    .pack_part =
        [](const TensorView& stored, std::int64_t first, std::int64_t count, std::byte* packed) {
          const std::int64_t row = stored.dim[1] * 4;
          std::memcpy(packed + first * row, stored.as<std::byte>() + first * row,
                      static_cast<std::size_t>(count * row));
        },
};

TEST_F(Store, ALargeMatrixIsPackedAndReleasedInParts) {
  constexpr std::int64_t kRow = std::int64_t{1} << 20;  // bytes; 4 MiB at a time
  Floats values(static_cast<std::size_t>(7 * kRow / 4));
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i % 977);
  source_ = std::make_shared<CountingSource>(std::map<std::string, Floats>{{"a", values}});
  make("graph g {\n  weight a: f32[7, 262144]\n}\n");
  EXPECT_EQ(floats(0, &kRows), values);
  using Parts = std::vector<std::pair<std::int64_t, std::int64_t>>;
  EXPECT_EQ(source_->parts, (Parts{{0, 4 * kRow}, {4 * kRow, 3 * kRow}}));
  EXPECT_EQ(source_->releases["a"], 1) << "and what no part covers";
}

TEST_F(Store, ALayoutIsPackedOnceAndTheSourceReleased) {
  make("graph g {\n  weight a: f32[6]\n}\n");
  EXPECT_EQ(floats(0, &kReversed), (Floats{6, 5, 4, 3, 2, 1}));
  const TensorView first = must(store_->get(0, &kReversed));
  EXPECT_EQ(must(store_->get(0, &kReversed)).memory, first.memory);
  EXPECT_EQ(source_->reads["a"], 1);
  EXPECT_EQ(source_->releases["a"], 1);
  EXPECT_EQ(store_->allocated_bytes(), 24);
  // As stored, it is another tensor.
  EXPECT_EQ(floats(0), (Floats{1, 2, 3, 4, 5, 6}));
  EXPECT_EQ(store_->allocated_bytes(), 24);
}

TEST_F(Store, ConstantsAreComputedOnce) {
  make(R"(graph g {
  weight a: f32[6]
  weight b: f32[6]
  const %0: f32[6] = neg(x: a)
  const %1: f32[3] = slice(x: b) {offset = 2, size = 3}
  const %2: f32[6] = neg(x: %0)
}
)");
  EXPECT_EQ(floats(result(0)), (Floats{-1, -2, -3, -4, -5, -6}));
  EXPECT_EQ(floats(result(0)), (Floats{-1, -2, -3, -4, -5, -6}));
  EXPECT_EQ(source_->reads["a"], 1);
  EXPECT_EQ(source_->reads["b"], 0) << "only what the constant needs";
  EXPECT_EQ(floats(result(1)), (Floats{30, 40, 50}));
  EXPECT_EQ(floats(result(2)), (Floats{1, 2, 3, 4, 5, 6}));
  EXPECT_EQ(floats(result(0), &kReversed), (Floats{-6, -5, -4, -3, -2, -1}));
}

/// Rows of a slice lie apart in memory; kernels take parameters without gaps.
TEST_F(Store, ViewsOfWeightsAreDense) {
  make(R"(graph g {
  weight a: f32[2, 3]
  const %0: f32[2, 2] = slice(x: a) {offset = 1, size = 2}
}
)");
  EXPECT_EQ(floats(result(0)), (Floats{2, 3, 5, 6}));
}

TEST_F(Store, BothResultsOfAnOpAreKeptApart) {
  make(R"(graph g {
  weight a: f32[2, 3]
  weight b: f32[2, 3]
  const %0: f32[2, 3], %1: f32[2, 3] = rms_norm(x: a, residual: b)
}
)");
  EXPECT_EQ(floats(result(0, 1)), (Floats{11, 22, 33, 44, 55, 66}));
  EXPECT_NEAR(floats(result(0, 0))[0], 11 / std::sqrt((121 + 484 + 1089) / 3.0), 1e-5);
}

TEST_F(Store, AWeightMayBeNamedLikeAComputation) {
  make(R"text(graph g {
  weight a: f32[6]
  weight "neg(a)": f32[6]
  const %0: f32[6] = neg(x: a)
}
)text");
  EXPECT_EQ(floats(1), (Floats{7, 7, 7, 7, 7, 7}));
  EXPECT_EQ(floats(result(0)), (Floats{-1, -2, -3, -4, -5, -6}));
}

/// Every step uses the one before twice: computing each use anew would take 2⁶⁰ steps.
TEST_F(Store, SharedOperandsAreComputedOnce) {
  std::string text = "graph g {\n  weight a: f32[2, 3]\n  const %0: f32[2, 3] = neg(x: a)\n";
  for (int i = 1; i <= 60; ++i) {
    const std::string before = std::to_string(i - 1);
    text += cat("  const %", i, ": f32[2, 3] = add(x: %", before, ", y: %", before, ")\n");
  }
  make(text + "}\n");
  EXPECT_EQ(floats(result(60))[0], -0x1p60f);
}

TEST_F(Store, WhatDoesNotFitIsAnError) {
  make(R"(graph g {
  weight a: f32[7]
  weight b: bf16[6]
  weight c: f32[6]
  const %0: f32[7] = neg(x: a)
}
)");
  EXPECT_TRUE(is_error(store_->get(0, nullptr), Code::invalid_argument,
                       "weight a: expected f32[7], got f32[6]"));
  EXPECT_TRUE(is_error(store_->get(1, nullptr), Code::invalid_argument,
                       "weight b: expected bf16[6], got f32[6]"));
  EXPECT_TRUE(is_error(store_->get(2, nullptr), Code::not_found, "no such weight"));
  EXPECT_TRUE(is_error(store_->get(3, nullptr), Code::invalid_argument, "weight a: expected"));
}

TEST_F(Store, IndicesOfConstantsAreChecked) {
  std::vector<std::int32_t> ids = {0, 99, 1};
  struct Ids final : WeightSource {
    std::vector<std::int32_t>& ids;
    std::vector<float> table = std::vector<float>(8, 1.0f);
    explicit Ids(std::vector<std::int32_t>& i) : ids(i) {}
    Result<TensorView> find(std::string_view name) const override {
      if (name == "ids") return dense_view(ids.data(), DType::i32, {3});
      return dense_view(const_cast<float*>(table.data()), DType::f32, {4, 2});
    }
  };
  graph_ = std::make_shared<const ir::Graph>(must(ir::parse(R"(graph g {
  weight ids: i32[3]
  weight table: f32[4, 2]
  const %0: f32[3, 2] = embedding(ids: ids, table: table)
}
)")));
  WeightStore store(graph_, std::make_shared<Ids>(ids), test::device("reference"));
  EXPECT_TRUE(is_error(store.get(result(0), nullptr), Code::invalid_argument,
                       "[embedding] ids[1]: expected 0 to 3, got 99"));
  ids[1] = 3;
  EXPECT_TRUE(is_ok(store.get(result(0), nullptr)));
}

TEST_F(Store, ADeviceWithMemoryOfItsOwnGetsCopies) {
  const auto device = std::make_shared<test::FarDevice>();
  make(R"(graph g {
  weight a: f32[2, 3]
  const %0: f32[2, 2] = slice(x: a) {offset = 1, size = 2}
}
)",
       device);
  const auto there = [&](const TensorView& view) {
    const auto& buffer = *static_cast<test::FarBuffer*>(view.memory);
    Floats values(static_cast<std::size_t>(view.elements()));
    EXPECT_TRUE(is_ok(device->download(buffer, view.offset, values.data(), view.elements() * 4)));
    return values;
  };
  EXPECT_EQ(there(must(store_->get(0, nullptr))), (Floats{1, 2, 3, 4, 5, 6}));
  EXPECT_EQ(source_->releases["a"], 1) << "the file's pages are not needed any more";
  EXPECT_EQ(there(must(store_->get(result(0), nullptr))), (Floats{2, 3, 5, 6}));
  EXPECT_EQ(there(must(store_->get(0, &kReversed))), (Floats{6, 5, 4, 3, 2, 1}));
  EXPECT_EQ(store_->allocated_bytes(), 24 + 16 + 24);
}

}  // namespace
}  // namespace krait
