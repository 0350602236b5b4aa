// Uses the library through its installed headers alone, and crosses the shared library's border
// with everything that an embedder does first:  consumer MODEL
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include <krait/krait.hpp>

namespace {

void expect(bool good, const char* what, const std::string& detail = {}) {
  if (good) return;
  std::fprintf(stderr, "consumer: %s %s\n", what, detail.c_str());
  std::exit(1);
}

template <class T>
T take(krait::Result<T> result, const char* what) {
  expect(result.ok(), what, result.message());
  return *std::move(result);
}

void check_errors() {
  const krait::Status status(krait::Code::corrupt, "planted");
  const krait::Result<int> result(status);
  expect(!result.ok() && result.message() == "planted", "a result loses its error");
  expect(name(result.status().code()) == "corrupt", "the code has no name");
  const auto missing = krait::Model::load("no/such/folder");
  expect(missing.status().code() == krait::Code::not_found, "a missing model is not missed");
}

void check_lists() {
  expect(krait::Shape({2, 3}) == krait::Shape({2, 3}), "equal shapes differ");
  bool cpu = false, scan = false;
  for (const krait::DeviceInfo& device : krait::list_devices()) cpu = cpu || device.name == "cpu";
  expect(cpu, "there is no CPU among the devices");
  for (const krait::OpInfo& op : krait::list_ops()) {
    if (op.name != "selective_scan") continue;
    for (const krait::OpKernels& entry : op.kernels)
      scan = scan || (entry.backend == "cpu" && !entry.kernels.empty());
  }
  expect(scan, "the CPU has no kernel for selective_scan");
}

/// y[t] = Σ_{i <= t} 2 x[i], by a scan that forgets nothing (A = 0) with one channel and one state.
void check_graph() {
  using krait::DType, krait::Value;
  namespace dims = krait::dims;
  krait::GraphBuilder graph("running_sum");
  const Value x = graph.input("x", DType::f32, {dims::T, 1});
  const Value one = graph.input("one", DType::f32, {dims::T, 1});
  const Value B = graph.op("split", {{"x", one}}, {{"parts", 1.0}});
  const krait::Outputs sum =
      graph.op("selective_scan",
               {{"u", graph.op("linear", {{"x", x}, {"w", graph.weight("w", DType::f32, {1, 1})}})},
                {"dt", one},
                {"A", graph.parameter("A", DType::f32, {1, 1})},
                {"B", B},
                {"C", B},
                {"state", graph.state("sum", {dims::C, 1, 1})},
                {"starts", graph.input("starts", DType::i32, {dims::starts})},
                {"slot_in", graph.input("slot_in", DType::i32, {dims::S})},
                {"slot_out", graph.input("slot_out", DType::i32, {dims::S})}});
  graph.output("y", sum.first);
  const krait::Graph built = take(graph.build(), "build()");
  const krait::Graph parsed = take(krait::Graph::parse(built.print()), "parse()");
  expect(parsed.print() == built.print(), "a graph changes when printed and parsed");

  float w = 2, A = 0;
  const krait::Weight weights[] = {{"w", krait::dense_view(&w, DType::f32, {1, 1})},
                                   {"A", krait::dense_view(&A, DType::f32, {1, 1})}};
  const auto model = take(krait::Model::from_graph(parsed, weights), "from_graph()");
  const auto program =
      take(krait::Program::create(model, take(krait::open_device("cpu"), "cpu")), "create()");
  auto session = take(krait::Session::create(program, {.slots = 2}), "Session::create()");
  float values[] = {1, 2, 3, 10, 20}, ones[] = {1, 1, 1, 1, 1};
  const krait::Feed feeds[] = {{"x", krait::dense_view(values, DType::f32, {5, 1})},
                               {"one", krait::dense_view(ones, DType::f32, {5, 1})}};
  const std::int64_t lengths[] = {3, 2};
  const int fresh[] = {-1, -1}, slots[] = {0, 1};
  const krait::Status ran = session.run(lengths, fresh, slots, feeds);
  expect(ran.ok(), "run()", ran.message());
  const std::vector<float> want = {2, 6, 12, 20, 60};
  expect(take(session.output("y"), "output()") == want, "the running sums are wrong");
  expect(session.position(0) == 3 && session.position(1) == 2, "positions are wrong");

  krait::GraphBuilder broken("broken");
  broken.output("y", broken.op("no_such_op", {}));
  expect(broken.build().status().code() == krait::Code::not_found, "a wrong op is not refused");
}

/// Greedy text is deterministic, and a session that continues from a state writes the same.
void check_text(const char* folder) {
  const auto model = take(krait::Model::load(folder), "Model::load()");
  const auto device = take(krait::open_device(), "open_device()");
  const auto program = take(krait::Program::create(model, device), "Program::create()");
  const auto tokenizer = take(model.tokenizer(), "tokenizer()");
  auto sampler = take(krait::Sampler::create({}), "Sampler::create()");
  auto session = take(krait::Session::create(program), "Session::create()");
  std::vector<std::int32_t> tokens = take(tokenizer.encode("It was a dark"), "encode()");
  krait::Logits logits = take(session.prefill(tokens), "prefill()");
  expect(logits.vocab == model.info().vocab_size && logits.rows == 1, "logits have a wrong shape");
  const krait::State state = take(session.snapshot(), "snapshot()");
  for (int i = 0; i < 5; ++i) {
    tokens.push_back(sampler.sample(logits.values, tokens));
    logits = take(session.step(tokens.back()), "step()");
  }
  const std::string text = take(tokenizer.decode(tokens), "decode()");
  expect(text.size() > 20 && text.substr(0, 13) == "It was a dark", "the text is wrong:", text);
  const std::vector<float> last(logits.values.begin(), logits.values.end());

  auto other = take(krait::Session::create(program), "Session::create()");
  const krait::Status restored = other.restore(state);
  expect(restored.ok(), "restore()", restored.message());
  logits = take(other.prefill(std::span(tokens).last(5)), "prefill()");
  double difference = 0;
  for (std::size_t i = 0; i < last.size(); ++i)
    difference = std::max(difference, std::abs(double{last[i]} - double{logits.values[i]}));
  expect(difference < 1e-4, "a restored state continues differently");
  std::printf("krait %d.%d on %s: %s\n", KRAIT_VERSION_MAJOR, KRAIT_VERSION_MINOR,
              program.device().name.c_str(), text.c_str());
}

}  // namespace

int main(int argc, char** argv) {
  expect(argc == 2, "expected a model's folder");
  check_errors();
  check_lists();
  check_graph();
  check_text(argv[1]);
}
