/** The links of a serialised workflow. Pure. */

/** Lead the node's links to the slots that the new type has, and drop the others. */
export function moveLinks(graph, node, target) {
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
export function endsOf(link) {
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
export function forget(graph, dropped) {
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
export function same(one, other) {
  return String(one) === String(other);
}
