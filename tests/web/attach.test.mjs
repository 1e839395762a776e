import assert from "node:assert/strict";
import { test } from "node:test";
import { ATTACH, attached, detached } from "../../web/lib/swap/attach.mjs";

const BLANK = {
  type: ATTACH, width: 270, height: 110, properties: { cnr_id: "hybrid-ksampler" },
  inputs: [{ name: "model", type: "MODEL", link: null }, { name: "options", type: "HYBRID_OPTIONS", link: null }],
  outputs: [{ name: "MODEL", type: "MODEL", links: null }],
  widgets: [{ name: "mode", value: "adaptive" }, { name: "tolerance", value: 0.01 }],
};
const node = (id, type, inputs, outputs, at) => ({
  id, type, pos: [at, 0], size: [200, 100], flags: {}, mode: 0, properties: {},
  inputs: inputs.map(([name, kind, link]) => ({ name, type: kind, link })),
  outputs: outputs.map(([name, links]) => ({ name, type: name, links })),
});

/** A loader whose model goes to a guider and to a scheduler; a SamplerCustomAdvanced. */
function advanced() {
  return {
    id: "root", last_node_id: 4, last_link_id: 4, groups: [],
    nodes: [
      node(1, "UNETLoader", [], [["MODEL", [1, 2]]], 0),
      node(2, "CFGGuider", [["model", "MODEL", 1]], [["GUIDER", [3]]], 400),
      node(3, "BasicScheduler", [["model", "MODEL", 2]], [["SIGMAS", [4]]], 800),
      node(4, "SamplerCustomAdvanced", [["guider", "GUIDER", 3], ["sigmas", "SIGMAS", 4]], [], 1200),
    ],
    links: [
      [1, 1, 0, 2, 0, "MODEL"], [2, 1, 0, 3, 0, "MODEL"], [3, 2, 0, 4, 0, "GUIDER"], [4, 3, 0, 4, 1, "SIGMAS"],
    ],
  };
}
const found = (graph, id) => graph.nodes.find((one) => one.id === id);
const mine = (graph) => graph.nodes.filter(({ type }) => type === ATTACH);

test("the guider's model goes through a new node, the scheduler's does not", () => {
  const { workflow, count } = attached(advanced(), BLANK);
  const [made] = mine(workflow);
  assert.deepEqual([count, mine(workflow).length, made.id], [1, 1, 5]);
  assert.deepEqual(workflow.links[0], [1, 5, 0, 2, 0, "MODEL"]);
  assert.deepEqual(workflow.links[1], [2, 1, 0, 3, 0, "MODEL"]);
  assert.deepEqual(workflow.links.at(-1), [5, 1, 0, 5, 0, "MODEL"]);
  assert.deepEqual(found(workflow, 1).outputs[0].links, [2, 5]);
  assert.deepEqual([made.inputs[0].link, made.outputs[0].links], [5, [1]]);
  assert.deepEqual(made.widgets_values, ["adaptive", 0.01]);
  assert.deepEqual([workflow.last_node_id, workflow.last_link_id], [5, 5]);
});

test("it covers no other node", () => {
  const { workflow } = attached(advanced(), BLANK);
  const [{ pos: [x, y], size: [w, h] }] = mine(workflow);
  for (const { type, pos, size } of workflow.nodes) {
    if (type === ATTACH) continue;
    const apart = x + w <= pos[0] || pos[0] + size[0] <= x || y + h <= pos[1] - 30 || pos[1] + size[1] <= y - 30;
    assert.ok(apart, type);
  }
});

test("a second time changes nothing, and the way out gives the same workflow", () => {
  const there = attached(advanced(), BLANK);
  assert.equal(attached(there.workflow, BLANK).count, 0);
  const back = detached(there.workflow);
  assert.equal(back.count, 1);
  const { last_node_id: _, last_link_id: __, ...rest } = back.workflow;
  const { last_node_id: a, last_link_id: b, ...expected } = advanced();
  expected.nodes[0].outputs[0].links = [2, 1];
  assert.deepEqual(rest, expected);
});

test("two samplers of one model share one node", () => {
  const graph = advanced();
  graph.nodes.push(
    node(5, "SamplerCustom", [["model", "MODEL", 5]], [], 1600),
  );
  graph.nodes[0].outputs[0].links.push(5);
  graph.links.push([5, 1, 0, 5, 0, "MODEL"]);
  const { workflow, count } = attached(graph, BLANK);
  assert.deepEqual([count, mine(workflow).length], [2, 1]);
  assert.deepEqual(mine(workflow)[0].outputs[0].links, [1, 5]);
});

test("a model that comes into a subgraph is attached inside", () => {
  const inner = {
    id: "inner", state: { lastNodeId: 2, lastLinkId: 2 },
    nodes: [node(1, "SamplerCustom", [["model", "MODEL", 1]], [], 0)],
    links: [{ id: 1, origin_id: -10, origin_slot: 0, target_id: 1, target_slot: 0, type: "MODEL" }],
    inputs: [{ name: "model", linkIds: [1] }],
  };
  const graph = { id: "root", nodes: [], links: [], definitions: { subgraphs: [inner] } };
  const [result] = attached(graph, BLANK).workflow.definitions.subgraphs;
  assert.deepEqual(result.inputs[0].linkIds, [2]);
  assert.deepEqual(result.links.map((link) => [link.origin_id, link.target_id]), [[2, 1], [-10, 2]]);
  assert.deepEqual(result.state, { lastNodeId: 2, lastLinkId: 2 });
});
