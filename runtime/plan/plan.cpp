#include "runtime/plan/plan.h"

#include <algorithm>
#include <bit>
#include <set>

#include "runtime/core/try.h"
#include "runtime/plan/arena.h"

namespace krait {
namespace {

/// Tokens, sequences, rows and slots are counted by int32 indices.
constexpr std::int64_t kMaxSize = std::int64_t{1} << 30;

std::int64_t round_up(std::int64_t n) {
  if (n < 0 || n > kMaxSize) return n;  // make_plan refuses it
  return static_cast<std::int64_t>(std::bit_ceil(static_cast<std::uint64_t>(n)));
}

}  // namespace

Sizes bucket(const Sizes& sizes) {
  Sizes result = sizes;
  result.tokens = round_up(sizes.tokens);
  result.sequences = round_up(sizes.sequences);
  result.rows = sizes.rows ? round_up(sizes.rows) : 0;
  return result;
}

Shape resolve(const Shape& shape, const Sizes& sizes) {
  Shape result = shape;
  for (int axis = 0; axis < shape.rank(); ++axis) {
    std::int64_t base = 0;
    switch (shape[axis].symbol) {
      case 'T':
        base = sizes.tokens;
        break;
      case 'S':
        base = sizes.sequences;
        break;
      case 'M':
        base = sizes.rows;
        break;
      case 'C':
        base = sizes.slots;
        break;
      default:
        break;
    }
    result[axis] = Dim(base + shape[axis].value);
  }
  return result;
}

namespace {

/// Adds the likeliest id of every row of logits as an output of the graph.
Status add_argmax(ir::Graph& graph, ir::Id& next, ir::Id& tokens) {
  ir::Id logits = ir::kNone;
  for (const ir::Output& output : graph.outputs) {
    if (output.name == "logits") logits = output.value;
  }
  for (ir::Id id = 0; id < static_cast<ir::Id>(graph.values.size()); ++id) {
    if (graph[id].kind == ir::Kind::input && graph[id].name == "tokens") tokens = id;
  }
  if (logits == ir::kNone || tokens == ir::kNone) {
    return unsupported("graph ", graph.name,
                       " has no input named tokens and output named logits to generate with");
  }
  KRAIT_ASSIGN(const ir::Node* node,
               ir::append(graph, argmax_op, {logits}, default_attrs(argmax_op)));
  next = node->outputs[0];
  graph.outputs.push_back({"next", next});
  return {};
}

/// Where every token has its row of logits, in order, rows need no gathering.
Status drop_gathering(ir::Graph& graph) {
  bool found = false;
  for (const ir::Node& node : graph.nodes) {
    if (node.op != &gather_rows_op) continue;
    const ir::Value& rows = graph[node.inputs[1]];
    if (rows.kind != ir::Kind::input || rows.name != "rows") continue;
    ir::replace_uses(graph, node.outputs[0], node.inputs[0]);
    found = true;
  }
  if (!found) return {};
  for (ir::Node& node : graph.nodes) KRAIT_TRY(ir::retype(graph, node));
  return {};
}

/// Follows views to the value whose memory they look at.
ir::Id base_of(const std::vector<Home>& homes, ir::Id id) {
  while (homes[static_cast<std::size_t>(id)].place == Home::Place::view) {
    id = homes[static_cast<std::size_t>(id)].view_of;
  }
  return id;
}

std::int64_t bytes_of_value(const ir::Value& value, const Sizes& sizes) {
  return bytes_of(value.type.dtype, resolve(value.type.shape, sizes).elements());
}

/// Decides for every value whether it lies in the arena, is a weight, a state or a view.
Status assign_places(Plan& plan) {
  const ir::Graph& graph = *plan.graph;
  plan.homes.resize(graph.values.size());
  std::vector<bool> needed(graph.values.size());  // constants used by nodes that run
  for (const ir::Node& node : graph.nodes) {
    if (node.constant) continue;
    for (const ir::Id id : node.inputs) {
      if (id != ir::kNone) needed[static_cast<std::size_t>(id)] = true;
    }
  }
  const auto home = [&](ir::Id id) -> Home& { return plan.homes[static_cast<std::size_t>(id)]; };
  for (ir::Id id = 0; id < static_cast<ir::Id>(graph.values.size()); ++id) {
    const ir::Value& value = graph[id];
    if (value.kind == ir::Kind::input) home(id).place = Home::Place::arena;
    if (value.kind == ir::Kind::weight && needed[static_cast<std::size_t>(id)]) {
      home(id).place = Home::Place::weight;
    }
    if (value.kind == ir::Kind::state) {
      home(id).place = Home::Place::state;
      home(id).state = static_cast<int>(plan.states.size());
      plan.states.push_back(id);
    }
  }
  for (std::size_t n = 0; n < graph.nodes.size(); ++n) {
    const ir::Node& node = graph.nodes[n];
    for (std::size_t o = 0; o < node.outputs.size(); ++o) {
      const ir::Id id = node.outputs[o];
      if (id == ir::kNone) continue;
      if (node.constant) {
        if (needed[static_cast<std::size_t>(id)]) home(id).place = Home::Place::weight;
      } else if (node.op->view) {
        home(id) = {Home::Place::view, 0, {}, -1, node.inputs[0], static_cast<int>(n)};
      } else if (node.op->outputs[o].role == Role::state) {
        const Output& output = node.op->outputs[o];
        home(id) = home(node.inputs[static_cast<std::size_t>(input_index(*node.op, output.like))]);
      } else {
        home(id).place = Home::Place::arena;
      }
    }
  }
  for (const ir::Output& output : graph.outputs) {
    if (home(base_of(plan.homes, output.value)).place != Home::Place::arena) {
      return unsupported("output ", output.name, " of graph ", graph.name,
                         " is not computed by a call");
    }
  }
  return {};
}

/// A view of every value for planning: extents and strides, no memory.
Result<std::vector<TensorView>> shape_views(const Plan& plan) {
  // Bytes of this many elements of any type, and sums of some thousands of them, fit 63 bits.
  constexpr std::int64_t kMaxElements = std::int64_t{1} << 46;
  const ir::Graph& graph = *plan.graph;
  std::vector<TensorView> views;
  for (const ir::Value& value : graph.values) {
    const Shape shape = resolve(value.type.shape, plan.sizes);
    if (const std::int64_t elements = shape.elements(); elements < 0 || elements > kMaxElements) {
      return invalid("a value ", to_string(value.type), " of graph ", graph.name,
                     " is too large in a call of ", plan.sizes.tokens, " tokens");
    }
    views.push_back(dense_view(nullptr, value.type.dtype, shape));
  }
  for (const ir::Node& node : graph.nodes) {
    if (!node.op->view) continue;
    KRAIT_ASSIGN(views[static_cast<std::size_t>(node.outputs[0])],
                 node.op->view(views[static_cast<std::size_t>(node.inputs[0])], node.attrs));
  }
  return views;
}

Status choose_kernels(Plan& plan, WeightStore& weights) {
  const ir::Graph& graph = *plan.graph;
  KRAIT_ASSIGN(const std::vector<TensorView> views, shape_views(plan));
  for (std::size_t n = 0; n < graph.nodes.size(); ++n) {
    const ir::Node& node = graph.nodes[n];
    if (node.constant || node.op->view) continue;
    Call call;
    call.op = node.op;
    call.attrs = node.attrs;
    call.steps = plan.sizes.steps;
    call.native = plan.activations == Activations::native;
    for (std::size_t i = 0; i < node.inputs.size(); ++i) {
      if (node.inputs[i] != ir::kNone) {
        call.inputs[i] = views[static_cast<std::size_t>(node.inputs[i])];
      }
    }
    for (std::size_t o = 0; o < node.outputs.size(); ++o) {
      if (node.outputs[o] != ir::kNone) {
        call.outputs[o] = views[static_cast<std::size_t>(node.outputs[o])];
      }
    }
    KRAIT_TRY(check(call));
    KRAIT_ASSIGN(KernelChoice choice, choose_kernel(call, *plan.device));
    Step step;
    step.node = static_cast<int>(n);
    step.kernel = choice.kernel;
    step.refused = std::move(choice.refused);
    step.cost = cost(call);
    for (std::size_t i = 0; i < node.inputs.size(); ++i) {
      const ir::Id id = node.inputs[i];
      if (id == ir::kNone) continue;
      const WeightLayout* layout =
          step.kernel->layout ? step.kernel->layout(call, static_cast<int>(i)) : nullptr;
      if (plan.homes[static_cast<std::size_t>(id)].place == Home::Place::weight) {
        KRAIT_ASSIGN(step.packed[i], weights.get(id, layout));
      } else if (layout) {
        return unsupported("[", node.op->name, "] ", node.op->inputs[i].name, ": kernel ",
                           step.kernel->name, " of ", plan.device->info().name,
                           " takes only weights here, not what a call computes");
      }
    }
    if (step.kernel->workspace) step.workspace_bytes = step.kernel->workspace(call, *plan.device);
    plan.steps.push_back(std::move(step));
  }
  return {};
}

/// Marks the steps whose states no earlier step of the plan updates. (The first one is early only
/// where it follows another run: what came before may have written anything.)
void mark_early(Plan& plan) {
  std::set<int> written;
  for (std::size_t s = 0; s < plan.steps.size(); ++s) {
    Step& step = plan.steps[s];
    const ir::Node& node = plan.graph->nodes[static_cast<std::size_t>(step.node)];
    step.early = true;
    for (const ir::Id id : node.outputs) {
      const int state = id == ir::kNone ? -1 : plan.homes[static_cast<std::size_t>(id)].state;
      if (state >= 0 && !written.insert(state).second) step.early = false;
    }
  }
}

/// Marks the steps whose next one has something to do before they have their inputs.
void mark_next_first(Plan& plan) {
  for (std::size_t s = 0; s + 1 < plan.steps.size(); ++s)
    plan.steps[s].next_first = plan.steps[s + 1].kernel->holds_weights;
}

/// Bytes of weights that make a step a large one, and that a step fetches ahead; and how many do.
constexpr std::int64_t kLargeWeights = std::int64_t{4} << 20;
constexpr std::int64_t kFetchAhead = std::int64_t{3} << 20;
constexpr std::size_t kMostAhead = 4;

/// The largest of a step's weights that are plain numbers, dense in memory.
TensorView largest_weight(const Step& step) {
  TensorView largest;
  std::int64_t most = 0;
  for (const TensorView& weight : step.packed) {
    const bool plain =
        weight.dtype == DType::f32 || weight.dtype == DType::f16 || weight.dtype == DType::bf16;
    if (!weight || !plain || !is_dense(weight)) continue;
    const std::int64_t bytes = bytes_of(weight.dtype, weight.elements());
    if (bytes <= most) continue;
    most = bytes;
    largest = dense_view(weight.memory, DType::u8, {bytes}, weight.offset);
  }
  return largest;
}

/// Between two large steps the memory is idle: at the end of the first, and in the small ones after
/// it. Each fetches a piece of the second one's weights.
void fetch_ahead(Plan& plan) {
  std::vector<Step>& steps = plan.steps;
  const auto large = [&](std::size_t s) {
    const TensorView weight = largest_weight(steps[s]);
    return weight && weight.dim[0] >= kLargeWeights;
  };
  for (std::size_t s = 0; s < steps.size(); ++s) {
    if (!large(s)) continue;
    const TensorView weight = largest_weight(steps[s]);
    std::size_t first = s;
    while (first > 0 && s - first < kMostAhead && !(first < s && large(first))) --first;
    std::int64_t at = 0;
    for (std::size_t i = first; i < s && at < weight.dim[0]; ++i) {
      const std::int64_t bytes = std::min(kFetchAhead, weight.dim[0] - at);
      steps[i].ahead = dense_view(weight.memory, DType::u8, {bytes}, weight.offset + at);
      at += bytes;
    }
  }
}

/// Gives every value of the arena, and every workspace, a place that nothing else uses meanwhile.
void lay_out(Plan& plan) {
  const ir::Graph& graph = *plan.graph;
  const int end = static_cast<int>(plan.steps.size());
  std::vector<Lifetime> lifetimes;
  std::vector<int> lifetime_of(graph.values.size(), -1);
  const auto add = [&](ir::Id id, int first) {
    lifetime_of[static_cast<std::size_t>(id)] = static_cast<int>(lifetimes.size());
    const int copies = id == plan.tokens ? kBurst : 1;
    lifetimes.push_back({copies * bytes_of_value(graph[id], plan.sizes), first, first});
  };
  const auto use = [&](ir::Id id, int step) {
    const int at = lifetime_of[static_cast<std::size_t>(base_of(plan.homes, id))];
    if (at >= 0) lifetimes[static_cast<std::size_t>(at)].last = step;
  };
  // Inputs are written before the first step.
  for (ir::Id id = 0; id < static_cast<ir::Id>(graph.values.size()); ++id) {
    if (graph[id].kind == ir::Kind::input) add(id, -1);
  }
  std::vector<std::size_t> workspace;
  for (int s = 0; s < end; ++s) {
    const Step& step = plan.steps[static_cast<std::size_t>(s)];
    const ir::Node& node = graph.nodes[static_cast<std::size_t>(step.node)];
    for (const ir::Id id : node.inputs) {
      if (id != ir::kNone) use(id, s);
    }
    for (const ir::Id id : node.outputs) {
      if (id != ir::kNone && id != plan.next &&
          plan.homes[static_cast<std::size_t>(id)].place == Home::Place::arena)
        add(id, s);
    }
    workspace.push_back(lifetimes.size());
    lifetimes.push_back({step.workspace_bytes, s, s});
  }
  if (plan.next != ir::kNone) {
    lifetime_of[static_cast<std::size_t>(plan.next)] =
        lifetime_of[static_cast<std::size_t>(plan.tokens)];
    // Runs follow each other without new inputs.
    for (ir::Id id = 0; id < static_cast<ir::Id>(graph.values.size()); ++id) {
      if (graph[id].kind == ir::Kind::input) use(id, end);
    }
  }
  for (const ir::Output& output : graph.outputs) use(output.value, end);
  std::vector<std::int64_t> offsets;
  plan.arena_bytes = pack_arena(lifetimes, offsets);
  for (std::size_t id = 0; id < graph.values.size(); ++id) {
    if (lifetime_of[id] >= 0)
      plan.homes[id].offset = offsets[static_cast<std::size_t>(lifetime_of[id])];
  }
  for (const ir::Id id : {plan.tokens, plan.next}) {
    if (id != ir::kNone) {
      plan.homes[static_cast<std::size_t>(id)].offset +=
          (kBurst - 1) * bytes_of_value(graph[plan.tokens], plan.sizes);
    }
  }
  for (std::size_t s = 0; s < plan.steps.size(); ++s) {
    plan.steps[s].workspace_offset = offsets[workspace[s]];
  }
}

}  // namespace

Result<std::shared_ptr<const Plan>> make_plan(const ir::Graph& graph,
                                              std::shared_ptr<Device> device, WeightStore& weights,
                                              const Sizes& sizes, Activations activations) {
  for (const std::int64_t size : {sizes.tokens, sizes.sequences, sizes.rows, sizes.slots}) {
    if (size < 0 || size > kMaxSize) {
      return invalid("plan: expected sizes from 0 to ", kMaxSize, ", got ", size);
    }
  }
  auto plan = std::make_shared<Plan>();
  ir::Graph own = graph;
  if (sizes.greedy) {
    KRAIT_TRY(drop_gathering(own));
    KRAIT_TRY(add_argmax(own, plan->next, plan->tokens));
  }
  KRAIT_ASSIGN(ir::Graph specialised,
               ir::specialise(std::move(own), {kernel_predicate(device, activations, sizes)}));
  plan->graph = std::make_shared<const ir::Graph>(std::move(specialised));
  plan->device = std::move(device);
  plan->sizes = sizes;
  plan->activations = activations;
  KRAIT_TRY(assign_places(*plan));
  KRAIT_TRY(choose_kernels(*plan, weights));
  mark_early(*plan);
  mark_next_first(*plan);
  fetch_ahead(*plan);
  lay_out(*plan);
  return std::shared_ptr<const Plan>(std::move(plan));
}

std::string describe(const Plan& plan) {
  const ir::Graph& graph = *plan.graph;
  std::ostringstream out;
  out << "plan of " << graph.name << " on " << plan.device->info().name << ": " << plan.sizes.tokens
      << " tokens, " << plan.sizes.sequences << " sequences, " << plan.sizes.rows
      << " rows of logits" << (plan.activations == Activations::native ? ", native" : "") << "\n";
  double bytes = 0;
  for (const Step& step : plan.steps) {
    const ir::Node& node = graph.nodes[static_cast<std::size_t>(step.node)];
    std::string types;
    for (const ir::Id id : node.outputs) {
      if (id != ir::kNone) types += (types.empty() ? "" : ", ") + to_string(graph[id].type);
    }
    out << "  " << node.op->name << " -> " << step.kernel->name << "  " << types << "  "
        << static_cast<std::int64_t>(step.cost.bytes) << " bytes, "
        << static_cast<std::int64_t>(step.cost.flops) << " flops";
    if (step.workspace_bytes) out << ", workspace " << step.workspace_bytes;
    out << "\n";
    for (const std::string& refusal : step.refused) out << "      not " << refusal << "\n";
    bytes += step.cost.bytes;
  }
  out << "  arena " << plan.arena_bytes << " bytes; " << static_cast<std::int64_t>(bytes)
      << " bytes moved at least\n";
  return std::move(out).str();
}

ir::HasKernel kernel_predicate(std::shared_ptr<Device> device, Activations activations,
                               const Sizes& sizes) {
  return [device = std::move(device), activations, sizes](
             const Op& op, std::span<const Type* const> types, const Attrs& attrs) {
    Call call;
    call.op = &op;
    call.attrs = attrs;
    call.steps = sizes.steps;
    call.native = activations == Activations::native;
    for (std::size_t i = 0; i < types.size(); ++i) {
      if (types[i])
        call.inputs[i] = dense_view(nullptr, types[i]->dtype, resolve(types[i]->shape, sizes));
    }
    const auto inferred = infer(op, types, attrs);
    if (!inferred.ok()) return false;
    for (std::size_t o = 0; o < op.outputs.size(); ++o) {
      if (!inferred->present[o]) continue;
      call.outputs[o] =
          dense_view(nullptr, inferred->types[o].dtype, resolve(inferred->types[o].shape, sizes));
    }
    return choose_kernel(call, *device).ok();
  };
}

}  // namespace krait
