/** What the settings are. Names and tooltips are translated in locales/<language>/settings.json. */

export const CATEGORY = "Hybrid KSampler";
export const MODES = ["adaptive", "paper", "exact", "off"];
export const ID = {
  mode: "HybridKSampler.DefaultMode",
  tolerance: "HybridKSampler.DefaultTolerance",
  idle: "HybridKSampler.IdleSeconds",
  open: "HybridKSampler.OpenPlot",
  ray: "HybridKSampler.RayAddress",
  weights: "HybridKSampler.RayWeights",
};

/** category: the group and the entry below CATEGORY. */
export const ENTRIES = [
  {
    id: ID.mode,
    category: ["New nodes", "Mode"],
    name: "Mode of new nodes",
    tooltip: "Nodes that are there already keep theirs.",
    type: "combo",
    options: MODES,
    sortOrder: 1, // above the tolerance
    defaultValue: MODES[0],
  },
  {
    id: ID.tolerance,
    category: ["New nodes", "Tolerance"],
    name: "Tolerance of new nodes",
    tooltip: "Of mode adaptive: lower is closer to KSampler's image, higher is faster.",
    type: "number",
    attrs: { min: 0, max: 1, step: 0.0005, maxFractionDigits: 4 },
    defaultValue: 0.0125,
  },
  {
    id: ID.idle,
    category: ["Second GPU", "Idle time"],
    name: "Let go of the second GPU after this many idle seconds",
    tooltip: "Its memory is free again then; the next run gets it ready anew. At least 10.",
    type: "number",
    attrs: { min: 10, step: 10 },
    defaultValue: 600,
  },
  {
    id: ID.ray,
    category: ["Other computers", "Address"],
    name: "Ray address of other computers, such as 192.168.1.5:6379",
    tooltip: "Of your own Ray cluster; *2 behind it for two GPUs there. Empty: this computer alone.",
    type: "text",
    sortOrder: 1, // above the weights
    defaultValue: "",
  },
  {
    id: ID.weights,
    category: ["Other computers", "Weights"],
    name: "Send models' weights to other computers",
    tooltip: "Off: they load the same model file from their own disk.",
    type: "boolean",
    defaultValue: false,
  },
  {
    id: ID.open,
    category: ["Plot", "Open"],
    name: "Open the plot in every node",
    tooltip: "Off: a node shows a sentence and a strip of its steps; a click on it opens the plot.",
    type: "boolean",
    defaultValue: false,
  },
];

const NODES = ["Hybrid_KSampler", "Hybrid_KSamplerAdvanced", "Hybrid_AttachModel"];

/** [widget name, value] pairs that a new node of `type` starts with. setting(id): a value. */
export function defaultsOf(type, setting) {
  if (!NODES.includes(type)) return [];
  const mode = setting(ID.mode);
  const tolerance = setting(ID.tolerance);
  return [
    ...(MODES.includes(mode) ? [["mode", mode]] : []),
    ...(tolerance >= 0 && tolerance <= 1 ? [["tolerance", tolerance]] : []),
  ];
}

/** Whether the server takes this as an idle time. */
export function isIdleSeconds(value) {
  return Number.isFinite(value) && value >= 10;
}
