/** KSampler nodes turned into Hybrid KSampler nodes and back, in a serialised workflow. */

export const TO_HYBRID = {
  KSampler: "Hybrid_KSampler",
  KSamplerAdvanced: "Hybrid_KSamplerAdvanced",
};
export const TO_KSAMPLER = Object.fromEntries(
  Object.entries(TO_HYBRID).map(([ksampler, hybrid]) => [hybrid, ksampler]),
);

const PACK = "hybrid-ksampler";
const CORE = "comfy-core";
const IDENTITY = ["Node name for S&R", "cnr_id", "aux_id", "ver"];

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
    for (const [index, node] of graph.nodes.entries()) {
      const type = Object.hasOwn(types, node.type) ? types[node.type] : undefined;
      if (!type || !chosen(node, graph.id)) continue;
      count += 1;
      moveLinks(graph, node, blanks[type]);
      graph.nodes[index] = replaced(node, blanks[node.type], blanks[type]);
    }
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
  const size = [...node.computeSize()];
  return { type: node.type, title, size, inputs, outputs, properties, widgets };
}

/** The workflow itself and the definitions of all subgraphs, however deep. */
function graphsIn(graph) {
  return [graph, ...(graph.definitions?.subgraphs ?? []).flatMap(graphsIn)];
}

function replaced(node, source, target) {
  const values = valuesOf(node, source, target);
  const fresh = {
    ...node,
    type: target.type,
    size: [node.size[0], Math.max(0, node.size[1] + target.size[1] - source.size[1])],
    inputs: target.inputs.map((slot) => {
      const old = node.inputs?.find(({ name }) => name === slot.name);
      return filled(slot, old, { link: old?.link ?? null });
    }),
    outputs: target.outputs.map((slot, index) => {
      const old = node.outputs?.[index];
      return filled(slot, old, { links: old?.links ?? null });
    }),
    properties: propertiesOf(node, target),
    widgets_values: target.widgets.map(({ name }) => values[name]),
  };
  if (node.widgets_values_named) fresh.widgets_values_named = values;
  if (node.title === source.title) delete fresh.title;
  return fresh;
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

/** The node's own properties; those that say which type and pack it is of come from the new type. */
function propertiesOf(node, target) {
  const old = node.properties ?? {};
  const own = Object.entries(old).filter(([key]) => !IDENTITY.includes(key));
  const identity = IDENTITY.filter((key) => key in target.properties).map((key) => [
    key,
    target.properties[key],
  ]);
  const pack = old.cnr_id || old.aux_id ? { cnr_id: target.type in TO_HYBRID ? CORE : PACK } : {};
  return { ...Object.fromEntries(own), ...pack, ...Object.fromEntries(identity) };
}

/** Lead the node's links to the slots that the new type has, and drop the others. */
function moveLinks(graph, node, target) {
  const inputs = (node.inputs ?? []).map(({ name }) =>
    target.inputs.findIndex((slot) => slot.name === name),
  );
  const outputs = (node.outputs ?? []).map(({ type }, index) =>
    target.outputs[index]?.type === type ? index : -1,
  );
  /** Whether both ends of the link are still there; they are moved. */
  const led = (link) => {
    const ends = endsOf(link);
    if (same(ends.target, node.id)) ends.targetSlot = inputs[ends.targetSlot] ?? -1;
    if (same(ends.origin, node.id)) ends.originSlot = outputs[ends.originSlot] ?? -1;
    return (
      !(same(ends.target, node.id) && ends.targetSlot < 0) &&
      !(same(ends.origin, node.id) && ends.originSlot < 0)
    );
  };
  const lost = graph.links.filter((link) => !led(link));
  graph.links = graph.links.filter((link) => !lost.includes(link));
  if (graph.floatingLinks) graph.floatingLinks = graph.floatingLinks.filter(led);
  forget(graph, new Set(lost.map((link) => endsOf(link).id)));
}

/** The ends of a link, to read and write, in both forms in which graphs are saved. */
function endsOf(link) {
  const [id, origin, originSlot, target, targetSlot] = Array.isArray(link)
    ? [0, 1, 2, 3, 4]
    : ["id", "origin_id", "origin_slot", "target_id", "target_slot"];
  return {
    id: link[id],
    origin: link[origin],
    target: link[target],
    get originSlot() {
      return link[originSlot];
    },
    set originSlot(index) {
      link[originSlot] = index;
    },
    get targetSlot() {
      return link[targetSlot];
    },
    set targetSlot(index) {
      link[targetSlot] = index;
    },
  };
}

/** Take dropped links out of everything that names them. */
function forget(graph, dropped) {
  if (!dropped.size) return;
  const without = (ids) => ids?.filter((id) => !dropped.has(id));
  for (const node of graph.nodes) {
    for (const slot of node.inputs ?? []) if (dropped.has(slot.link)) slot.link = null;
    for (const slot of node.outputs ?? []) if (slot.links) slot.links = without(slot.links);
  }
  for (const slot of [...(graph.inputs ?? []), ...(graph.outputs ?? [])]) {
    if (slot.linkIds) slot.linkIds = without(slot.linkIds);
  }
  for (const reroute of [...(graph.reroutes ?? []), ...(graph.extra?.reroutes ?? [])]) {
    if (reroute.linkIds) reroute.linkIds = without(reroute.linkIds);
  }
  if (graph.extra?.linkExtensions) {
    graph.extra.linkExtensions = graph.extra.linkExtensions.filter(({ id }) => !dropped.has(id));
  }
}

/** Whether two ids name the same node; newer frontends save them as text. */
function same(one, other) {
  return String(one) === String(other);
}
