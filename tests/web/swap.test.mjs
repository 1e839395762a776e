import assert from "node:assert/strict";
import { test } from "node:test";

import { grownTo } from "../../web/lib/swap/room.mjs";
import { TO_HYBRID, TO_KSAMPLER, blank, swapped } from "../../web/lib/swap/swap.mjs";

const ROOT = "root-id";
const INNER = "subgraph-id";
const PLAIN = ["seed", "control_after_generate", "steps", "cfg"];
const HYBRID = [...PLAIN, "mode", "tolerance"];
const DEFAULTS = { control_after_generate: "randomize", mode: "exact", tolerance: 0.01 };

const slot = (name, type, link = null) => ({ name, type, link });
const widgetSlot = (name, link = null) => ({ name, type: "*", widget: { name }, link });

function fresh(type, sockets, widgets, outputs, height) {
  const live = {
    type,
    widgets: [
      ...widgets.map((name) => ({ name, value: DEFAULTS[name] ?? 1 })),
      { name: "plot", serialize: false },
    ],
    computeSize: () => [270, height],
    serialize: () => ({
      inputs: [...sockets.map((name) => slot(name, name)), ...widgets.map((name) => widgetSlot(name))],
      outputs: outputs.map((name) => ({ name, type: name, links: null })),
      properties: {
        "Node name for S&R": type,
        ...(type.startsWith("Hybrid") && { cnr_id: "hybrid-ksampler", ver: "9.9.9" }),
      },
    }),
  };
  return blank(live, `Title of ${type}`);
}

const BLANKS = {
  KSampler: fresh("KSampler", ["model", "latent_image"], PLAIN, ["LATENT"], 262),
  Hybrid_KSampler: fresh(
    "Hybrid_KSampler", ["model", "latent_image", "options"], HYBRID, ["LATENT", "STRING"], 470,
  ),
  KSamplerAdvanced: fresh("KSamplerAdvanced", ["model"], ["noise_seed"], ["LATENT"], 100),
  Hybrid_KSamplerAdvanced: fresh(
    "Hybrid_KSamplerAdvanced", ["model"], ["noise_seed", "mode"], ["LATENT", "STRING"], 200,
  ),
};

/** A serialised node of `type` with the given links at its slots. */
function node(type, id, links = {}, more = {}) {
  const { inputs, outputs, properties, widgets, width, height } = structuredClone(BLANKS[type]);
  const size = [width, height];
  for (const input of inputs) input.link = links[input.name] ?? null;
  for (const output of outputs) output.links = links[output.name] ?? null;
  const values = widgets.map(({ name, value }) => more.values?.[name] ?? value);
  const { values: _, ...rest } = more;
  const saved = { size, inputs, outputs, properties, widgets_values: values };
  return { id, type, pos: [1, 2], mode: 0, flags: {}, ...saved, ...rest };
}

const other = (id) => ({
  id,
  type: "Other",
  pos: [-2000 - 400 * id, 0],
  size: [200, 60],
  inputs: [slot("in", "*")],
  outputs: [{ name: "out", type: "*", links: [] }],
});

/** A KSampler between other nodes: 1 -> model, 2 -> the widget steps, out -> 3. */
function workflow(more = {}) {
  return {
    id: ROOT,
    nodes: [
      other(1),
      other(2),
      { ...other(3), inputs: [slot("in", "LATENT", 12)] },
      node("KSampler", 4, { model: 10, steps: 11, LATENT: [12] }, more),
    ],
    links: [
      [10, 1, 0, 4, 0, "MODEL"],
      [11, 2, 0, 4, 4, "INT"],
      [12, 4, 0, 3, 0, "LATENT"],
    ],
    groups: [{ title: "far", bounding: [-5000, 0, 9, 9] }],
  };
}

const swap = (graph, kinds = TO_HYBRID, chosen = undefined) => swapped(graph, kinds, BLANKS, chosen);
const found = (graph, id) => graph.nodes.find((one) => one.id === id);
const slotOf = (graph, id, name) => found(graph, id).inputs.findIndex((input) => input.name === name);

test("values stay and the new ones are the blank's", () => {
  const values = { seed: 7, control_after_generate: "increment", steps: 30, cfg: 4.5 };
  const { workflow: result, count } = swap(workflow({ values }));
  assert.equal(count, 1);
  assert.deepEqual(found(result, 4).widgets_values, [7, "increment", 30, 4.5, "exact", 0.01]);
});

test("a value of 0, false or an empty text stays", () => {
  const values = { seed: 0, control_after_generate: "", cfg: 0 };
  const result = swap(workflow({ values })).workflow;
  assert.deepEqual(found(result, 4).widgets_values.slice(0, 4), [0, "", 1, 0]);
});

test("values by name are written where the frontend saves them", () => {
  const widgets_values_named = { seed: 7, control_after_generate: "fixed", steps: 3, cfg: 2 };
  const graph = workflow({ values: widgets_values_named, widgets_values_named });
  const result = swap(graph).workflow;
  const named = { ...widgets_values_named, mode: "exact", tolerance: 0.01 };
  assert.deepEqual(found(result, 4).widgets_values_named, named);
  assert.equal(found(swap(workflow()).workflow, 4).widgets_values_named, undefined);
});

test("links lead to the slots of the same name, those to widgets too", () => {
  const result = swap(workflow()).workflow;
  assert.deepEqual(result.links.map(([id, , , , target]) => [id, target]), [[10, 0], [11, 5], [12, 0]]);
  assert.equal(slotOf(result, 4, "steps"), 5);
  assert.equal(found(result, 4).inputs[5].link, 11);
  assert.deepEqual(found(result, 4).inputs[5].widget, { name: "steps" });
  assert.deepEqual(found(result, 4).outputs.map(({ links }) => links), [[12], null]);
});

test("looks, mode, flags, place and own properties stay", () => {
  const kept = {
    title: "Mine", color: "#322", bgcolor: "#533", mode: 4, flags: { collapsed: true, pinned: true },
    pos: [5, 6], shape: 2, order: 3, showAdvanced: true,
    properties: { "Node name for S&R": "KSampler", mine: 1 },
  };
  const swappedNode = found(swap(workflow(kept)).workflow, 4);
  const { properties, ...rest } = kept;
  for (const [key, value] of Object.entries(rest)) assert.deepEqual(swappedNode[key], value, key);
  assert.equal(swappedNode.properties.mine, 1);
});

test("the default title becomes the new default", () => {
  assert.equal("title" in found(swap(workflow({ title: "Title of KSampler" })).workflow, 4), false);
});

test("labels of slots stay", () => {
  const graph = workflow();
  found(graph, 4).inputs[0].label = "my model";
  assert.equal(found(swap(graph).workflow, 4).inputs[0].label, "my model");
});

test("a node keeps its height where it has room and grows where it has none, and back", () => {
  for (const [height, there] of [[600, 600], [470, 470], [300, 470], [262, 470]]) {
    const graph = swap(workflow({ size: [400, height] })).workflow;
    assert.deepEqual(found(graph, 4).size, [400, there]);
    assert.deepEqual(found(swap(graph, TO_KSAMPLER).workflow, 4).size, [400, height]);
  }
});

test("what a layout makes of the new height is not kept on the way back", () => {
  for (const [laidOut, artist, back] of [[482, 482, 300], [300, 300, 300], [482, 600, 418]]) {
    const graph = swap(workflow({ size: [400, 300] })).workflow;
    grownTo(found(graph, 4), laidOut);
    found(graph, 4).size = [400, artist];
    assert.deepEqual(found(swap(graph, TO_KSAMPLER).workflow, 4).size, [400, back]);
  }
});

test("a node that was never a KSampler shrinks by what the types differ", () => {
  const graph = { id: ROOT, nodes: [node("Hybrid_KSampler", 4, {}, { size: [300, 500] })], links: [] };
  const back = found(swap(graph, TO_KSAMPLER).workflow, 4);
  assert.deepEqual(back.size, [300, 292]);
  assert.deepEqual(back.properties, { "Node name for S&R": "KSampler" });
});

test("the room that an open plot took goes with it", () => {
  const graph = swap(workflow({ size: [400, 300] })).workflow;
  const mine = found(graph, 4);
  Object.assign(mine.properties, { hybrid_plot: "open", hybrid_plot_folded: mine.size[1] });
  mine.size = [400, mine.size[1] + 120];
  const back = found(swap(graph, TO_KSAMPLER).workflow, 4);
  assert.deepEqual(back.size, [400, 300]);
  assert.deepEqual(Object.keys(back.properties), ["Node name for S&R"]);
});

test("names in file names go on working and the pack is ours until the way back", () => {
  const properties = { "Node name for S&R": "KSampler", cnr_id: "comfy-core", ver: "0.3.1" };
  const there = swap(workflow({ properties })).workflow;
  const mine = found(there, 4).properties;
  assert.equal(mine["Node name for S&R"], "KSampler");
  assert.deepEqual([mine.cnr_id, mine.ver], ["hybrid-ksampler", "9.9.9"]);
  assert.deepEqual(found(swap(there, TO_KSAMPLER).workflow, 4).properties, properties);
});

const lying = (id, y, height = 100) => ({ ...other(id), pos: [1, y], size: [270, height], flags: {} });

test("what the grown node would cover is pushed down with its group, and comes back", () => {
  const graph = workflow();
  graph.nodes.push(lying(5, 320), lying(6, 460), { ...lying(7, 320), pos: [600, 320] });
  graph.groups = [{ title: "Sampling", bounding: [-20, -60, 400, 660] }];
  const there = swap(graph).workflow;
  assert.deepEqual([5, 6, 7].map((id) => found(there, id).pos[1]), [522, 672, 320]);
  assert.equal(there.groups[0].bounding[3], 842);
  assert.deepEqual(swap(there, TO_KSAMPLER).workflow, graph);
});

test("what was moved by hand since then stays where it is", () => {
  const graph = workflow();
  graph.nodes.push(lying(5, 320));
  const there = swap(graph).workflow;
  found(there, 5).pos = [30, 900];
  assert.deepEqual(found(swap(there, TO_KSAMPLER).workflow, 5).pos, [30, 900]);
});

test("what lay on the node before is left alone", () => {
  const graph = workflow();
  graph.nodes.push(lying(5, 200));
  assert.deepEqual(found(swap(graph).workflow, 5).pos, [1, 200]);
});

test("there and back gives the same workflow", () => {
  const values = { seed: 7, control_after_generate: "increment", steps: 30, cfg: 4.5 };
  const graph = workflow({ values, title: "Mine", mode: 2, flags: { collapsed: true } });
  assert.deepEqual(swap(swap(graph).workflow, TO_KSAMPLER).workflow, graph);
});

test("the given workflow is left as it is", () => {
  const graph = workflow();
  const copy = structuredClone(graph);
  swap(graph);
  assert.deepEqual(graph, copy);
});

test("only chosen nodes are swapped, told apart by the graph that holds them", () => {
  const inner = { id: INNER, nodes: [node("KSampler", 4), node("KSamplerAdvanced", 5)], links: [] };
  const graph = { ...workflow(), definitions: { subgraphs: [inner] } };
  const types = (result) => result.definitions.subgraphs[0].nodes.map(({ type }) => type);

  const one = swap(graph, TO_HYBRID, ({ id }, graphId) => graphId === INNER && id === 4);
  assert.equal(one.count, 1);
  assert.equal(found(one.workflow, 4).type, "KSampler");
  assert.deepEqual(types(one.workflow), ["Hybrid_KSampler", "KSamplerAdvanced"]);

  const all = swap(graph);
  assert.equal(all.count, 3);
  assert.deepEqual(types(all.workflow), ["Hybrid_KSampler", "Hybrid_KSamplerAdvanced"]);
});

test("subgraphs inside subgraphs are reached", () => {
  const deepest = { id: "deepest", nodes: [node("KSampler", 1)], links: [] };
  const middle = { id: INNER, nodes: [], links: [], definitions: { subgraphs: [deepest] } };
  const graph = { ...workflow(), definitions: { subgraphs: [middle] } };
  assert.equal(swap(graph).count, 2);
});

test("links to a subgraph's own inputs and outputs stay", () => {
  const inner = {
    id: INNER,
    nodes: [node("KSampler", 1, { steps: 1, LATENT: [2] })],
    links: [
      { id: 1, origin_id: -10, origin_slot: 0, target_id: 1, target_slot: 4, type: "INT" },
      { id: 2, origin_id: 1, origin_slot: 0, target_id: -20, target_slot: 0, type: "LATENT" },
    ],
    inputs: [{ name: "steps", linkIds: [1] }],
    outputs: [{ name: "LATENT", linkIds: [2] }],
  };
  const graph = { ...workflow(), definitions: { subgraphs: [inner] } };
  const [result] = swap(graph).workflow.definitions.subgraphs;
  assert.deepEqual(result.links.map((link) => link.target_slot), [5, 0]);
  assert.deepEqual(result.inputs, inner.inputs);
  assert.deepEqual(result.outputs, inner.outputs);
});

/** A Hybrid_KSampler with everything linked that KSampler lacks. */
function hybrid() {
  return {
    id: ROOT,
    nodes: [
      { ...other(1), outputs: [{ name: "out", type: "*", links: [10, 11, 12] }] },
      node("Hybrid_KSampler", 4, { model: 10, options: 11, tolerance: 12, LATENT: [13], STRING: [14] }),
      { ...other(5), inputs: [slot("latent", "LATENT", 13), slot("words", "STRING", 14)] },
    ],
    links: [
      [10, 1, 0, 4, 0, "MODEL"],
      [11, 1, 0, 4, 2, "HYBRID_OPTIONS"],
      [12, 1, 0, 4, 8, "FLOAT"],
      [13, 4, 0, 5, 0, "LATENT"],
      [14, 4, 1, 5, 1, "STRING"],
    ],
    extra: {
      reroutes: [{ id: 1, linkIds: [10, 11] }],
      linkExtensions: [{ id: 10, parentId: 1 }, { id: 11, parentId: 1 }],
    },
    reroutes: [{ id: 1, linkIds: [10, 11] }],
    floatingLinks: [
      { id: 1, origin_id: 4, origin_slot: 1, target_id: -1, target_slot: -1 },
      { id: 2, origin_id: 4, origin_slot: 0, target_id: -1, target_slot: -1 },
    ],
  };
}

test("the way back drops the links of options, report and tolerance, everywhere", () => {
  const result = swap(hybrid(), TO_KSAMPLER).workflow;
  assert.deepEqual(result.links.map(([id]) => id), [10, 13]);
  assert.deepEqual(found(result, 1).outputs[0].links, [10]);
  assert.deepEqual(found(result, 5).inputs.map(({ link }) => link), [13, null]);
  assert.deepEqual(found(result, 4).outputs, [{ name: "LATENT", type: "LATENT", links: [13] }]);
  assert.deepEqual(result.reroutes, [{ id: 1, linkIds: [10] }]);
  assert.deepEqual(result.extra.reroutes, [{ id: 1, linkIds: [10] }]);
  assert.deepEqual(result.extra.linkExtensions, [{ id: 10, parentId: 1 }]);
  assert.deepEqual(result.floatingLinks.map(({ id }) => id), [2]);
});

test("a dropped link leaves the subgraph's own slots too", () => {
  const inner = {
    id: INNER,
    nodes: [node("Hybrid_KSampler", 1, { tolerance: 1, model: 2 })],
    links: [
      { id: 1, origin_id: -10, origin_slot: 0, target_id: 1, target_slot: 8, type: "FLOAT" },
      { id: 2, origin_id: -10, origin_slot: 1, target_id: 1, target_slot: 0, type: "MODEL" },
    ],
    inputs: [{ name: "tolerance", linkIds: [1] }, { name: "model", linkIds: [2] }],
  };
  const graph = { ...workflow(), definitions: { subgraphs: [inner] } };
  const [result] = swap(graph, TO_KSAMPLER).workflow.definitions.subgraphs;
  assert.deepEqual(result.inputs.map(({ linkIds }) => linkIds), [[], [2]]);
  assert.deepEqual(result.links.map(({ id }) => id), [2]);
});

test("ids saved as text find their links", () => {
  const graph = workflow();
  found(graph, 4).id = "4";
  assert.equal(swap(graph).workflow.links[1][4], 5);
});

test("two swapped nodes linked to each other keep their link", () => {
  const graph = workflow();
  graph.nodes.push(node("KSampler", 6, { latent_image: 15 }));
  found(graph, 4).outputs[0].links.push(15);
  graph.links.push([15, 4, 0, 6, 1, "LATENT"]);
  const result = swap(graph).workflow;
  assert.deepEqual(result.links.at(-1), [15, 4, 0, 6, 1, "LATENT"]);
  assert.equal(found(result, 6).inputs[1].link, 15);
});

test("a workflow without samplers counts none", () => {
  const graph = { id: ROOT, nodes: [other(1)], links: [] };
  assert.deepEqual(swap(graph), { workflow: graph, count: 0 });
});
