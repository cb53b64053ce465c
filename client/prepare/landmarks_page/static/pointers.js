// Mouse, pen and fingers on the stage: one on a point drags it, one beside the points moves the picture, two zoom.

const REACH = { mouse: 14, pen: 16, touch: 28 }; // screen pixels about a point
const SLOP = { mouse: 2, pen: 3, touch: 6 }; // screen pixels that a hand trembles when it only chooses a point

export function followPointers(stage, { begin, place, finish, cancel }) {
  const down = new Map(); // pointers, by id: the last event of each
  let held = null; // the point that is dragged: which, by which pointer, from where
  const svg = stage.svg;

  const spread = () => {
    const [a, b] = [...down.values()];
    return Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY);
  };
  const between = () => {
    const [a, b] = [...down.values()];
    return { clientX: (a.clientX + b.clientX) / 2, clientY: (a.clientY + b.clientY) / 2 };
  };

  svg.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || down.size === 2) return;
    event.preventDefault(); // else the browser moves the focus off the point
    svg.setPointerCapture(event.pointerId);
    down.set(event.pointerId, event);
    svg.classList.add("dragging");
    if (down.size === 2) {
      if (held) cancel();
      held = null;
      return;
    }
    const index = stage.nearest(event, REACH[event.pointerType] ?? REACH.mouse);
    if (index < 0) return;
    held = { index, pointer: event.pointerId, point: stage.points[index], press: event, moving: false };
    begin(index);
  });

  svg.addEventListener("pointermove", (event) => {
    const last = down.get(event.pointerId);
    if (!last) return;
    if (held?.pointer === event.pointerId) {
      down.set(event.pointerId, event);
      const far = Math.hypot(event.clientX - held.press.clientX, event.clientY - held.press.clientY);
      held.moving ||= far > (SLOP[event.pointerType] ?? SLOP.mouse);
      if (!held.moving) return;
      const [from, to] = [stage.at(held.press), stage.at(event)]; // not the point's middle: it need not be hit
      place(held.index, held.point[0] + to.x - from.x, held.point[1] + to.y - from.y);
      return;
    }
    const [before, from] = down.size === 2 ? [spread(), stage.at(between())] : [0, stage.at(last)];
    down.set(event.pointerId, event);
    const to = down.size === 2 ? stage.at(between()) : stage.at(event);
    stage.pan(to.x - from.x, to.y - from.y);
    if (down.size === 2 && before > 0) stage.zoom(spread() / before, stage.at(between()));
  });

  const up = (event) => {
    if (!down.delete(event.pointerId)) return;
    if (held?.pointer === event.pointerId) {
      const end = event.type === "pointerup" ? finish : cancel;
      held = null;
      end();
    }
    svg.classList.toggle("dragging", down.size > 0);
  };
  svg.addEventListener("pointerup", up);
  svg.addEventListener("pointercancel", up);
  svg.addEventListener("lostpointercapture", up);

  svg.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      if (event.deltaY) stage.zoomStep(-Math.sign(event.deltaY), stage.at(event));
    },
    { passive: false },
  );
}
