/** Whether a node shows its plot or only the strip of steps, and the height that this takes. */

const OPEN = "hybrid_plot"; // a node's property: "open" or "folded"; none: as in the settings
const FOLDED = "hybrid_plot_folded"; // px: the node's height before its plot was opened

export function isOpen(node, prefs) {
  const own = node.properties?.[OPEN];
  return own === undefined ? prefs.open : own === "open";
}

export function setOpen(node, open) {
  node.properties[OPEN] = open ? "open" : "folded";
}

/** Open: grow by what is missing. Folded: as before. more: px that an open plot has more. */
export function resize(node, open, more) {
  const [width, height] = node.size;
  const least = node.computeSize()[1];
  if (open) {
    node.properties[FOLDED] = height;
    node.setSize([width, Math.max(least, height)]);
    return;
  }
  const before = node.properties[FOLDED] ?? height - more;
  delete node.properties[FOLDED];
  node.setSize([width, Math.max(least, before)]);
}
