/** Room for swapped nodes in a serialised graph, and the way back. Pure. */

import { around, inside, pushed } from "./layout.mjs";

/** A swapped node's property for the way back: {was, height, grown, moved, groups}. */
export const MEMORY = "hybrid_swap";

/** Whether a node, live or serialised, remembers what it was. */
export const remembers = (node) => Boolean(node.properties?.[MEMORY]);

/** Remember how much a swapped node has grown by now: a layout may make it higher, or less high. */
export function grownTo(node, height) {
  const memory = node.properties[MEMORY];
  memory.grown = height - memory.height;
}

/** Push away what the swapped nodes would cover. The first of them remembers it. */
export function makeRoom(graph, swapped) {
  const boxes = graph.nodes.map(boxOf);
  const grown = Object.fromEntries(
    swapped.filter((node) => !node.flags?.collapsed).map((node) => [node.id, node.properties[MEMORY].grown]),
  );
  const moves = pushed(boxes, grown);
  const members = (graph.groups ?? []).map((group) => ({
    group,
    ids: boxes.filter((box) => inside(group.bounding, before(box, grown))).map(({ id }) => id),
  }));
  const moved = [];
  for (const node of graph.nodes) {
    if (!moves[node.id]) continue;
    setY(node, yOf(node) + moves[node.id]);
    moved.push([node.id, moves[node.id], yOf(node)]);
  }
  const changed = new Set([...Object.keys(moves), ...Object.keys(grown)].map(String));
  const groups = [];
  for (const { group, ids } of members) {
    if (!ids.some((id) => changed.has(String(id)))) continue;
    const held = graph.nodes.filter(({ id }) => ids.includes(id)).map(boxOf);
    const bounding = around(group.bounding, held);
    const more = bounding[3] - group.bounding[3];
    if (more > 0) groups.push([group.title, more, bounding[3]]);
    group.bounding = bounding;
  }
  const memory = swapped[0].properties[MEMORY];
  if (moved.length) memory.moved = moved;
  if (groups.length) memory.groups = groups;
}

/** Take back what makeRoom did for these nodes, where nobody changed it since. */
export function giveBack(graph, swapped) {
  for (const { properties } of swapped) {
    const { moved = [], groups = [] } = properties?.[MEMORY] ?? {};
    for (const [id, dy, y] of moved) {
      const node = graph.nodes.find((one) => String(one.id) === String(id));
      if (node && yOf(node) === y) setY(node, y - dy);
    }
    for (const [title, more, height] of groups) {
      const group = graph.groups?.find(
        (one) => one.title === title && one.bounding[3] === height,
      );
      if (group) group.bounding = group.bounding.with(3, height - more);
    }
  }
}

/** {id, x, y, w, h} of a serialised node; a collapsed one is its title. */
export function boxOf({ id, pos, size, flags }) {
  const [x, y] = [pos[0] ?? pos["0"], pos[1] ?? pos["1"]];
  const [w, h] = [size?.[0] ?? size?.["0"] ?? 200, size?.[1] ?? size?.["1"] ?? 100];
  return flags?.collapsed ? { id, x, y, w: Math.min(w, 160), h: 0 } : { id, x, y, w, h };
}

const before = (box, grown) => ({ ...box, h: box.h - (grown[box.id] ?? 0) });
const yOf = ({ pos }) => pos[1];

function setY(node, y) {
  node.pos = [node.pos[0], y];
}
