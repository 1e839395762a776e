/** Room for nodes that grew or are new: what lies in the way moves, and groups grow with it. Pure. */

const TITLE = 30; // px above a node's position
const GAP = 20; // px between two nodes

/**
 * Where nodes have to move: {id: dy}. boxes: [{id, x, y, w, h}] of all nodes after the change, y that
 * of the body, h without the title. grown: {id: px} that nodes grew by, downwards. What they cover
 * now and did not before is pushed down, and what that covers in turn; what lay on a node that moves
 * goes with it.
 */
export function pushed(boxes, grown) {
  const before = new Map(boxes.map((box) => [box.id, { ...box, h: box.h - (grown[box.id] ?? 0) }]));
  const now = new Map(boxes.map((box) => [box.id, { ...box }]));
  const moved = (id) => now.get(id).y - before.get(id).y;
  const queue = boxes.filter(({ id }) => grown[id] > 0).sort((one, other) => one.y - other.y);
  for (let turn = 0; queue.length && turn < 20 * boxes.length; turn += 1) {
    const mover = now.get(queue.shift().id);
    for (const box of now.values()) {
      if (box.id === mover.id) continue;
      const dy = overlap(before.get(mover.id), before.get(box.id))
        ? moved(mover.id) - moved(box.id)
        : overlap(mover, box) && mover.y + mover.h + TITLE + GAP - box.y;
      if (!(dy > 0)) continue;
      box.y += dy;
      queue.push(box);
    }
  }
  const moves = [...now.keys()].map((id) => [id, moved(id)]).filter(([, dy]) => dy > 0);
  return Object.fromEntries(moves);
}

/** The place nearest to (x, y) for a box of w and h that covers none of `boxes`: [x, y]. */
export function freePlace(boxes, { x, y, w, h }) {
  const step = 40;
  const candidates = [];
  for (let i = -20; i <= 20; i += 1) {
    for (let j = -20; j <= 20; j += 1) candidates.push([x + i * step, y + j * step]);
  }
  const far = ([a, b]) => (a - x) ** 2 + (b - y) ** 2;
  candidates.sort((one, other) => far(one) - far(other));
  const free = ([a, b]) => boxes.every((box) => !overlap({ x: a, y: b, w, h }, box, GAP));
  return candidates.find(free) ?? [x, y];
}

/** The group's bounds [x, y, w, h], grown so that they hold `members` as before. */
export function around([x, y, w, h], members) {
  const low = Math.max(y + h, ...members.map((box) => box.y + box.h + GAP / 2));
  return [x, y, w, low - y];
}

/** Whether the middle of `box` is in the group's bounds. */
export function inside([x, y, w, h], box) {
  const [a, b] = [box.x + box.w / 2, box.y + box.h / 2];
  return a >= x && a <= x + w && b >= y && b <= y + h;
}

/** Whether two nodes lie on each other, titles included; apart: px that they are to keep. */
export function overlap(one, other, apart = 0) {
  return (
    one.x < other.x + other.w + apart &&
    other.x < one.x + one.w + apart &&
    one.y - TITLE < other.y + other.h + apart &&
    other.y - TITLE < one.y + one.h + apart
  );
}
