// The marks of points: the patient's right, left and the middle differ in shape as well as in colour.

const SVG = "http://www.w3.org/2000/svg";
const SHAPES = {
  right: "M-4.5 0A4.5 4.5 0 1 1 4.5 0A4.5 4.5 0 1 1 -4.5 0Z",
  left: "M0 -5.6L5.6 0L0 5.6L-5.6 0Z",
  middle: "M-4 -4H4V4H-4Z",
};

export function element(name, attributes = {}) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

export function sideOf(name) {
  return name.startsWith("right ") ? "right" : name.startsWith("left ") ? "left" : "middle";
}

// One point of the stage, in screen pixels about (0, 0).
export function mark(name, index) {
  const group = element("g", {
    class: `point ${sideOf(name)}`,
    tabindex: "0",
    role: "button",
    "aria-roledescription": "point",
    "data-index": index,
  });
  group.append(
    element("circle", { class: "ring-casing", r: 10 }),
    element("circle", { class: "ring", r: 10 }),
    element("path", { class: "casing", d: SHAPES[sideOf(name)] }),
    element("path", { class: "mark", d: SHAPES[sideOf(name)] }),
    element("circle", { class: "centre", r: 1 }),
  );
  return group;
}

// The same mark beside the point's name.
export function swatch(name) {
  const svg = element("svg", { class: `swatch ${sideOf(name)}`, viewBox: "-7 -7 14 14", "aria-hidden": "true" });
  svg.append(element("path", { class: "mark", d: SHAPES[sideOf(name)] }));
  return svg;
}
