/** Hybrid Attach Model put in front of other samplers in a serialised workflow, and out again. Pure. */

import { freePlace } from "./layout.mjs";
import { endsOf, same } from "./links.mjs";
import { boxOf } from "./room.mjs";
import { graphsIn } from "./swap.mjs";

export const ATTACH = "Hybrid_AttachModel";
const OURS = new Set([ATTACH, "Hybrid_Monitor"]); // a MODEL goes in and comes out
const SAMPLERS = new Set(["SamplerCustom", "SamplerCustomAdvanced"]);
const APART = 60; // px from the sampler's left edge

/**
 * The workflow with a node behind each model that a SamplerCustom or the guider of a
 * SamplerCustomAdvanced samples with, and how many samplers are behind one now. blank: swap.mjs's
 * blank() of ATTACH.
 */
export function attached(workflow, blank) {
  const result = structuredClone(workflow);
  let count = 0;
  for (const graph of graphsIn(result)) {
    const made = new Map(); // a model's origin -> the node behind it
    for (const node of graph.nodes.filter(({ type }) => SAMPLERS.has(type))) {
      const links = modelLinks(graph, node).filter((link) => !OURS.has(originOf(graph, link)?.type));
      for (const link of links) {
        const { origin, originSlot } = endsOf(link);
        const key = `${origin}:${originSlot}`;
        if (!made.has(key)) made.set(key, insert(graph, result, link, blank));
        else lead(graph, link, made.get(key));
      }
      if (links.length) count += 1;
    }
  }
  return { workflow: result, count };
}

/** The workflow without our nodes that a MODEL goes through, and how many there were. */
export function detached(workflow) {
  const result = structuredClone(workflow);
  let count = 0;
  for (const graph of graphsIn(result)) {
    for (const node of graph.nodes.filter(({ type }) => OURS.has(type))) {
      takeOut(graph, node);
      count += 1;
    }
  }
  return { workflow: result, count };
}

/** The links by which a model reaches a sampler in its graph: its own, or those of its guider. */
function modelLinks(graph, sampler) {
  const into = (node, wanted) =>
    (node?.inputs ?? [])
      .filter((slot) => slot.type === wanted && slot.link != null)
      .map((slot) => linkOf(graph, slot.link))
      .filter(Boolean);
  const guiders = into(sampler, "GUIDER").map((link) => originOf(graph, link));
  return [sampler, ...guiders].flatMap((node) => into(node, "MODEL"));
}

const linkOf = (graph, id) => graph.links.find((link) => endsOf(link).id === id);
const nodeOf = (graph, id) => graph.nodes.find((node) => same(node.id, id));
const originOf = (graph, link) => nodeOf(graph, endsOf(link).origin);

/** A new node in the middle of `link`; it takes the link's end over. */
function insert(graph, root, link, blank) {
  const target = nodeOf(graph, endsOf(link).target);
  const boxes = graph.nodes.map(boxOf);
  const { x, y } = boxOf(target);
  const size = [blank.width, blank.height];
  const wanted = { x: x - blank.width - APART, y: y - blank.height - APART, w: size[0], h: size[1] };
  const node = {
    id: nextNode(graph, root),
    type: ATTACH,
    pos: freePlace(boxes, wanted),
    size,
    flags: {},
    order: target.order ?? 0,
    mode: target.mode ?? 0,
    inputs: structuredClone(blank.inputs),
    outputs: structuredClone(blank.outputs),
    properties: structuredClone(blank.properties),
    widgets_values: blank.widgets.map(({ value }) => value),
  };
  node.outputs[0].links = [];
  graph.nodes.push(node);
  const { origin, originSlot } = endsOf(link);
  lead(graph, link, node);
  const id = nextLink(graph, root);
  const slot = node.inputs.findIndex(({ type }) => type === "MODEL");
  node.inputs[slot].link = id;
  graph.links.push(linkLike(link, [id, origin, originSlot, node.id, slot, "MODEL"]));
  addToOrigin(graph, origin, originSlot, id);
  return node;
}

/** Let `link` begin at the node's output. */
function lead(graph, link, node) {
  const ends = endsOf(link);
  removeFromOrigin(graph, ends.origin, ends.originSlot, ends.id);
  setOrigin(link, node.id, 0);
  dropReroutes(graph, link);
  node.outputs[0].links.push(ends.id);
}

/** Lead the links that begin at the node to where its model comes from, and drop it. */
function takeOut(graph, node) {
  const inward = linkOf(graph, node.inputs?.find(({ type }) => type === "MODEL")?.link);
  const outward = graph.links.filter((link) => same(endsOf(link).origin, node.id));
  const gone = graph.links.filter((link) => same(endsOf(link).target, node.id));
  for (const link of outward) {
    if (!inward) continue;
    const { origin, originSlot } = endsOf(inward);
    setOrigin(link, origin, originSlot);
    addToOrigin(graph, origin, originSlot, endsOf(link).id);
  }
  for (const link of inward ? gone : [...gone, ...outward]) {
    const { id, origin, originSlot, target, targetSlot } = endsOf(link);
    removeFromOrigin(graph, origin, originSlot, id);
    const slot = nodeOf(graph, target)?.inputs?.[targetSlot];
    if (slot?.link === id) slot.link = null;
    graph.links.splice(graph.links.indexOf(link), 1);
  }
  graph.nodes.splice(graph.nodes.indexOf(node), 1);
}

/** The slot that a link begins at: a node's output, or the subgraph's own input. */
function originSlots(graph, origin, slot) {
  const node = nodeOf(graph, origin);
  if (node) return [node.outputs?.[slot], "links"];
  return [graph.inputs?.[slot], "linkIds"];
}

function addToOrigin(graph, origin, slot, id) {
  const [found, key] = originSlots(graph, origin, slot);
  if (found) found[key] = [...(found[key] ?? []), id];
}

function removeFromOrigin(graph, origin, slot, id) {
  const [found, key] = originSlots(graph, origin, slot);
  if (found?.[key]) found[key] = found[key].filter((one) => one !== id);
}

function setOrigin(link, node, slot) {
  if (Array.isArray(link)) [link[1], link[2]] = [node, slot];
  else Object.assign(link, { origin_id: node, origin_slot: slot });
}

/** The link no longer goes where it went: it goes straight. */
function dropReroutes(graph, link) {
  const { id } = endsOf(link);
  delete link.parentId;
  if (graph.extra?.linkExtensions) {
    graph.extra.linkExtensions = graph.extra.linkExtensions.filter((one) => one.id !== id);
  }
  for (const reroute of [...(graph.reroutes ?? []), ...(graph.extra?.reroutes ?? [])]) {
    reroute.linkIds = reroute.linkIds?.filter((one) => one !== id);
  }
}

function linkLike(link, [id, origin, originSlot, target, targetSlot, type]) {
  if (Array.isArray(link)) return [id, origin, originSlot, target, targetSlot, type];
  return {
    id, origin_id: origin, origin_slot: originSlot, target_id: target, target_slot: targetSlot, type,
  };
}

/** Ids are numbers of the whole workflow in a root graph, of the subgraph in a subgraph. */
function nextNode(graph, root) {
  const all = graphsIn(root).flatMap(({ nodes }) => nodes.map(({ id }) => Number(id) || 0));
  return setLast(graph, "last_node_id", "lastNodeId", Math.max(0, ...all) + 1);
}

function nextLink(graph, root) {
  const all = graphsIn(root).flatMap(({ links }) => links.map((link) => Number(endsOf(link).id) || 0));
  return setLast(graph, "last_link_id", "lastLinkId", Math.max(0, ...all) + 1);
}

function setLast(graph, old, fresh, id) {
  if (old in graph) graph[old] = Math.max(graph[old] ?? 0, id);
  if (graph.state) graph.state[fresh] = Math.max(graph.state[fresh] ?? 0, id);
  return id;
}
