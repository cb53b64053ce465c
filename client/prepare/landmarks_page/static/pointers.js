// Mouse, pen and fingers on the stage: one on a point drags it, one beside the points moves the picture, two zoom.

const REACH = { mouse: 14, pen: 16, touch: 28 }; // screen pixels about a point

export function followPointers(stage, { begin, place, finish, cancel }) {
  const down = new Map(); // pointers, by id: the last event of each
  let held = null; // the point that is dragged: which, by which pointer, how far beside its middle it was taken
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
    const { x, y } = stage.at(event);
    const [px, py] = stage.points[index];
    held = { index, pointer: event.pointerId, dx: px - x, dy: py - y };
    begin(index);
  });

  svg.addEventListener("pointermove", (event) => {
    const last = down.get(event.pointerId);
    if (!last) return;
    if (held?.pointer === event.pointerId) {
      const { x, y } = stage.at(event);
      place(held.index, x + held.dx, y + held.dy);
      down.set(event.pointerId, event);
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
