// The picture with its points: drawing, zooming, moving the picture. All coordinates are pixels of the picture, (0, 0) at
// its outer corner, which is also the coordinate system of the drawing; so a point is where it is drawn.

import { mark } from "/static/marks.js";

const STEP = 1.25; // of one zoom
const CLOSEST = 4; // pixels of the picture that fill the stage at most

const $ = (id) => document.getElementById(id);

export class Stage {
  constructor(anatomy) {
    this.anatomy = anatomy;
    this.svg = $("stage");
    this.mirrored = $("mirrored");
    this.marks = anatomy.names.map(mark);
    $("marks").append(...this.marks);
    this.box = { x: 0, y: 0, width: 1, height: 1 };
    new ResizeObserver(() => this.#frame()).observe(this.svg);
  }

  showPicture(address, width, height) {
    this.size = { width, height };
    const picture = $("picture");
    picture.setAttribute("href", address);
    picture.setAttribute("width", width);
    picture.setAttribute("height", height);
    $("flipped").setAttribute("transform", `translate(${width} 0) scale(-1 1)`);
  }

  draw(edits, chosen) {
    const { points, saved } = edits;
    this.points = points;
    const path = this.anatomy.curves
      .map(({ points: along, closed }) => `M${along.map((i) => points[i].join(" ")).join("L")}${closed ? "Z" : ""}`)
      .join("");
    $("casing").setAttribute("d", path);
    $("curve").setAttribute("d", path);
    const moved = points.map((_, i) => edits.moved(i));
    const moves = points.map((point, i) => (moved[i] ? `M${saved[i].join(" ")}L${point.join(" ")}` : ""));
    $("moves").setAttribute("d", moves.join(""));
    this.marks.forEach((element, i) => {
      const [x, y] = points[i];
      element.classList.toggle("moved", moved[i]);
      element.classList.toggle("chosen", i === chosen);
      const place = `x ${x.toFixed(2)}, y ${y.toFixed(2)}`;
      element.setAttribute("aria-label", `${this.anatomy.names[i]} (${i}), ${place}${moved[i] ? ", moved" : ""}`);
    });
    this.#scaleMarks();
  }

  // Where a pointer is, in pixels of the picture.
  at(event) {
    return new DOMPoint(event.clientX, event.clientY).matrixTransform(this.svg.getScreenCTM().inverse());
  }

  // Screen pixels of one pixel of the picture.
  get scale() {
    return this.svg.getScreenCTM()?.a || 1;
  }

  // The point nearest to a pointer, within `reach` screen pixels, or -1.
  nearest(event, reach) {
    const { x, y } = this.at(event);
    const distances = this.points.map(([px, py]) => Math.hypot(px - x, py - y) * this.scale);
    const index = distances.indexOf(Math.min(...distances));
    return distances[index] <= reach ? index : -1;
  }

  // Show these points; all of them with the whole picture.
  fit(indices = null) {
    const shown = (indices ?? [...this.points.keys()]).map((i) => this.points[i]);
    if (!indices) shown.push([0, 0], [this.size.width, this.size.height]);
    const [xs, ys] = [shown.map(([x]) => x), shown.map(([, y]) => y)];
    const [x, y] = [Math.min(...xs), Math.min(...ys)];
    const [width, height] = [Math.max(...xs) - x, Math.max(...ys) - y];
    const pad = (indices ? 0.25 : 0.03) * Math.max(width, height, CLOSEST);
    this.#show({ x: x - pad, y: y - pad, width: width + 2 * pad, height: height + 2 * pad });
  }

  // Zoom by a factor about a place, by default the middle.
  zoom(factor, about = null) {
    const { x, y, width, height } = this.box;
    const largest = 2 * Math.max(this.size.width, this.size.height);
    const bounded = Math.max(CLOSEST, Math.min(largest, Math.max(width, height) / factor)) / Math.max(width, height);
    const centre = about ?? { x: x + width / 2, y: y + height / 2 };
    this.#show({
      x: centre.x - (centre.x - x) * bounded,
      y: centre.y - (centre.y - y) * bounded,
      width: width * bounded,
      height: height * bounded,
    });
  }

  zoomStep(direction, about = null) {
    this.zoom(STEP ** direction, about);
  }

  // Move the picture; its middle or a part of it always stays in sight.
  pan(dx, dy) {
    const { x, y, width, height } = this.box;
    const within = (low, length, full) => Math.min(full - length / 2, Math.max(-length / 2, low));
    this.#show({
      x: within(x - dx, width, this.size.width),
      y: within(y - dy, height, this.size.height),
      width,
      height,
    });
  }

  // Move the picture as far as is needed to see a point.
  reveal(index) {
    const [x, y] = this.points[index];
    const rectangle = this.svg.getBoundingClientRect();
    const half = { x: rectangle.width / this.scale / 2, y: rectangle.height / this.scale / 2 };
    const middle = { x: this.box.x + this.box.width / 2, y: this.box.y + this.box.height / 2 };
    const beyond = (d, limit) => Math.sign(d) * Math.max(0, Math.abs(d) - limit);
    const [dx, dy] = [beyond(x - middle.x, 0.9 * half.x), beyond(y - middle.y, 0.9 * half.y)];
    if (dx || dy) this.#show({ ...this.box, x: this.box.x + dx, y: this.box.y + dy });
  }

  #show(box) {
    this.box = box;
    this.#frame();
  }

  #frame() {
    const { x, y, width, height } = this.box;
    this.svg.setAttribute("viewBox", `${x} ${y} ${width} ${height}`);
    if (this.size) this.mirrored.setAttribute("viewBox", `${this.size.width - x - width} ${y} ${width} ${height}`);
    this.#scaleMarks();
  }

  // Marks keep their size on the screen however far the picture is enlarged.
  #scaleMarks() {
    if (!this.points) return;
    const size = 1 / this.scale;
    this.marks.forEach((element, i) =>
      element.setAttribute("transform", `translate(${this.points[i].join(" ")}) scale(${size})`),
    );
  }
}
