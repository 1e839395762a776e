/** KSampler nodes turned into Hybrid KSampler nodes and back, in a serialised workflow. Pure. */

import { moveLinks } from "./links.mjs";
import { MEMORY, giveBack, grownTo, makeRoom } from "./room.mjs";

export const TO_HYBRID = {
  KSampler: "Hybrid_KSampler",
  KSamplerAdvanced: "Hybrid_KSamplerAdvanced",
};
export const TO_KSAMPLER = Object.fromEntries(
  Object.entries(TO_HYBRID).map(([ksampler, hybrid]) => [hybrid, ksampler]),
);

const NAME = "Node name for S&R"; // what %KSampler.seed% in a file name looks for
const FOLDED = "hybrid_plot_folded"; // the height before the plot was opened
const OURS = ["hybrid_plot", FOLDED]; // properties that mean something to our nodes only
const IDENTITY = ["cnr_id", "aux_id", "ver"]; // of the pack that a node is of

/**
 * The workflow with nodes swapped, and how many were.
 *
 * workflow: what LGraph.serialize() returns; it is left as it is. types: TO_HYBRID or TO_KSAMPLER.
 * blanks: type -> a blank() of it, for every type in types, keys and values. chosen(node, graphId):
 * whether to swap this node; graphId is the id of the workflow or of the subgraph that holds it.
 * Links of slots that the new type lacks are dropped; everything else stays, ids included.
 */
export function swapped(workflow, types, blanks, chosen = () => true) {
  const result = structuredClone(workflow);
  let count = 0;
  for (const graph of graphsIn(result)) {
    const fresh = [];
    for (const [index, node] of graph.nodes.entries()) {
      const type = Object.hasOwn(types, node.type) ? types[node.type] : undefined;
      if (!type || !chosen(node, graph.id)) continue;
      moveLinks(graph, node, blanks[type]);
      graph.nodes[index] = replaced(node, blanks[node.type], blanks[type]);
      fresh.push({ old: node, now: graph.nodes[index] });
    }
    if (!fresh.length) continue;
    count += fresh.length;
    if (types === TO_HYBRID) makeRoom(graph, fresh.map(({ now }) => now));
    else giveBack(graph, fresh.map(({ old }) => old));
  }
  return { workflow: result, count };
}

/** What swapped() has to know of a type. node: a fresh live node; its default title is `title`. */
export function blank(node, title) {
  const saved = JSON.parse(JSON.stringify(node.serialize()));
  const { inputs = [], outputs = [], properties = {} } = saved;
  const widgets = (node.widgets ?? [])
    .filter((widget) => widget.serialize !== false)
    .map(({ name, value }) => ({ name, value }));
  const size = node.computeSize();
  const [width, height] = size;
  return { type: node.type, title, width, height, inputs, outputs, properties, widgets };
}

/** The workflow itself and the definitions of all subgraphs, however deep. */
export function graphsIn(graph) {
  return [graph, ...(graph.definitions?.subgraphs ?? []).flatMap(graphsIn)];
}

function replaced(node, source, target) {
  const values = valuesOf(node, source, target);
  const properties = propertiesOf(node, target);
  const fresh = {
    ...node,
    type: target.type,
    size: [node.size[0], heightOf(node, source, target)],
    inputs: target.inputs.map((slot) => {
      const old = node.inputs?.find(({ name }) => name === slot.name);
      return filled(slot, old, { link: old?.link ?? null });
    }),
    outputs: target.outputs.map((slot, index) => {
      const old = node.outputs?.[index];
      return filled(slot, old, { links: old?.links ?? null });
    }),
    properties,
    widgets_values: target.widgets.map(({ name }) => values[name]),
  };
  if (MEMORY in properties) {
    properties[MEMORY].height = node.size[1];
    grownTo(fresh, fresh.size[1]);
  }
  if (node.widgets_values_named) fresh.widgets_values_named = values;
  if (node.title === source.title) delete fresh.title;
  return fresh;
}

/** It keeps the height that it had and grows only where the new type needs more. */
function heightOf(node, source, target) {
  if (target.type in TO_KSAMPLER) return Math.max(node.size[1], target.height);
  const folded = foldedHeight(node);
  const memory = node.properties?.[MEMORY];
  if (memory) return folded - memory.grown;
  return Math.max(target.height, folded - (source.height - target.height));
}

/** The height of a node, live or serialised, without its plot. */
export function foldedHeight({ size, properties }) {
  return properties?.[FOLDED] ?? size[1];
}

/** A slot of the new type with the label and the links of the old one. */
function filled(slot, old, links) {
  const label = old?.label ?? slot.label;
  return { ...old, ...slot, ...(label === undefined ? {} : { label }), ...links };
}

function valuesOf(node, source, target) {
  const old = new Map(source.widgets.map(({ name }, index) => [name, node.widgets_values?.[index]]));
  return Object.fromEntries(target.widgets.map(({ name, value }) => [name, old.get(name) ?? value]));
}

/**
 * The node's own properties; those that say which pack it is of come from the new type. The way back
 * finds the old ones in the node's memory.
 */
function propertiesOf(node, target) {
  const old = node.properties ?? {};
  const has = (key) => IDENTITY.includes(key);
  const pick = (from, wanted) =>
    Object.fromEntries(Object.entries(from).filter(([key]) => wanted(key)));
  const gone = (key) => has(key) || key === MEMORY || OURS.includes(key);
  const kept = pick(old, (key) => !gone(key));
  if (target.type in TO_KSAMPLER) {
    return { ...kept, ...pick(target.properties, has), [MEMORY]: { was: pick(old, has) } };
  }
  const was = old[MEMORY]?.was ?? pick(target.properties, has);
  if (kept[NAME] === node.type) kept[NAME] = target.type;
  return { ...kept, ...was };
}
