/** Whether a node shows its plot or only the strip of steps, and the height that this takes. */

const OPEN = "hybrid_plot"; // a node's property: "open" or "folded"; none: as in the settings
const GROWN = "hybrid_plot_grown"; // px that the node grew when its plot was opened

export function isOpen(node, prefs) {
  const own = node.properties?.[OPEN];
  return own === undefined ? prefs.open : own === "open";
}

export function setOpen(node, open) {
  node.properties[OPEN] = open ? "open" : "folded";
}

/** Open: grow by what is missing. Folded: give that back. more: px that an open plot has more. */
export function resize(node, open, more) {
  const [width, height] = node.size;
  const least = node.computeSize()[1];
  if (open) {
    const grown = Math.max(0, least - height);
    if (grown) node.properties[GROWN] = grown;
    node.setSize([width, height + grown]);
    return;
  }
  const grown = node.properties[GROWN] ?? more;
  delete node.properties[GROWN];
  node.setSize([width, Math.max(least, height - grown)]);
}
