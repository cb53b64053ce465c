// Beside the picture: what is known of the face, its measures, the chosen point and the list of all points.

import { swatch } from "/static/marks.js";

const $ = (id) => document.getElementById(id);
const MEASURES = [
  ["commissure_height_difference", "Commissures, left − right", "height; positive: the left one is lower"],
  ["palpebral_fissure_S", "Palpebral fissure", "height of the eye opening"],
  ["brow_height_S", "Brow height", "above the middle of the eye"],
  ["philtrum_deviation", "Philtrum deviation", "positive: towards the patient's left"],
];
const SIDES = ["right", "left"];

export const words = (text) => text.replaceAll("_", " ");

function made(name, text, attributes = {}) {
  const element = document.createElement(name);
  element.textContent = text;
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

export function showFacts(face) {
  const facts = [
    ["Patient", `${face.subject}, session ${face.session}`],
    ["Movement", words(face.movement)],
    ["Palsy", face.side === "none" ? "none" : `${face.side}${face.grade ? `, HB ${face.grade}` : ""}`],
    ["Points by", face.landmark_source === "manual" ? "a person" : words(face.landmark_source)],
  ];
  $("facts").replaceChildren(...facts.flatMap(([name, value]) => [made("dt", name), made("dd", value)]));
  $("flags").replaceChildren(...face.flags.map((flag) => made("li", flag)));
}

// `now` and `saved` as the server gives them, or null.
export function showMeasures(now, saved) {
  const text = (value) => (value === null ? "–" : value.toFixed(3).replace("-", "−"));
  const rows = MEASURES.flatMap(([key, name, meaning]) => {
    const pick = (of, side) => (of === null ? null : side === null ? of[key] : of[key][side]);
    const sides = key.endsWith("_S") ? [0, 1] : [null];
    return sides.map((side) => {
      const row = document.createElement("tr");
      const [current, before] = [text(pick(now, side)), text(pick(saved, side))];
      const label = side === null ? name : `${name}, ${SIDES[side]}`;
      const shown = made("td", current, current === before ? {} : { class: "differs" });
      row.append(made("th", label, { scope: "row", title: meaning }), shown, made("td", before));
      return row;
    });
  });
  $("measures").replaceChildren(...rows);
}

export class PointList {
  constructor(anatomy, { choose, enter }) {
    this.anatomy = anatomy;
    this.list = $("points");
    this.order = anatomy.regions.flatMap(({ points }) => points);
    this.options = [];
    anatomy.regions.forEach(({ name, points }) => {
      const group = made("div", "", { role: "group", "aria-label": name });
      group.append(made("span", name, { "aria-hidden": "true" }), ...points.map((i) => this.#option(i)));
      this.list.append(group);
    });
    this.list.addEventListener("click", (event) => {
      const option = event.target.closest("[role=option]");
      if (option) choose(Number(option.dataset.index));
    });
    this.list.addEventListener("keydown", (event) => this.#key(event, choose, enter));
  }

  draw(edits, chosen) {
    this.chosen = chosen;
    this.options.forEach((option, i) => {
      option.setAttribute("aria-selected", String(i === chosen));
      option.querySelector(".moved").textContent = edits.moved(i) ? "moved" : "";
    });
    if (chosen === null) this.list.removeAttribute("aria-activedescendant");
    else this.list.setAttribute("aria-activedescendant", `point-${chosen}`);
    const [x, y] = chosen === null ? ["", ""] : edits.points[chosen].map((value) => value.toFixed(2));
    $("chosen-name").textContent = chosen === null ? "none" : `${this.anatomy.names[chosen]} (${chosen})`;
    for (const [id, value] of [["x", x], ["y", y]]) {
      $(id).disabled = chosen === null;
      $(id).value = value;
    }
  }

  reveal(index) {
    this.options[index].scrollIntoView({ block: "nearest" });
  }

  #option(index) {
    const name = this.anatomy.names[index];
    const option = made("div", "", { role: "option", id: `point-${index}`, "data-index": index, "aria-selected": "false" });
    option.append(swatch(name), made("span", `${name} (${index})`), made("span", "", { class: "moved" }));
    this.options[index] = option;
    return option;
  }

  #key(event, choose, enter) {
    const last = this.order.length - 1;
    const here = this.chosen === null ? -1 : this.order.indexOf(this.chosen);
    const to = { ArrowDown: Math.min(last, here + 1), ArrowUp: Math.max(0, here - 1), Home: 0, End: last }[event.key];
    if (to !== undefined) choose(this.order[to]);
    else if (event.key === "Enter" && this.chosen !== null) enter(this.chosen);
    else return;
    event.preventDefault();
  }
}
