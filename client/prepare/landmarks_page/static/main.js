// The page: which face is on it, what a person does to its points, and what becomes of that.

import { Edits } from "/static/edits.js";
import { nextUrgent, optionOf, placeOf } from "/static/faces.js";
import { Measuring } from "/static/measuring.js";
import { followPointers } from "/static/pointers.js";
import { PointList, showFacts, showMeasures } from "/static/panel.js";
import * as server from "/static/server.js";
import { Stage } from "/static/stage.js";

const $ = (id) => document.getElementById(id);
const range = (from, to) => Array.from({ length: to - from }, (_, i) => from + i);
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const [NUDGE, SHIFT_NUDGE] = [0.25, 2]; // pixels of the picture
const OUTSIDE = 0.5; // of the picture's size; the server refuses points further out
const PARTS = {
  face: null,
  "right-eye": [...range(17, 22), ...range(36, 42)],
  "left-eye": [...range(22, 27), ...range(42, 48)],
  mouth: range(48, 68),
};

history.replaceState(null, "", "/"); // the token was in the address; from here on it is in the cookie

let faces = [];
let face = null; // the one on the page
let version = ""; // of its saved points
let edits = null;
let chosen = null; // which point
let busy = false; // with the server: a face is loaded or saved
const measuring = new Measuring();
let stage, list;

function tell(text, { bad = false, again = false } = {}) {
  $("status").textContent = text;
  $("status").classList.toggle("bad", bad);
  $("again").hidden = !again;
}

function draw() {
  stage.draw(edits, chosen);
  list.draw(edits, chosen);
  $("caption").textContent = chosen === null ? "" : `${stage.anatomy.names[chosen]} (${chosen})`;
  drawButtons();
}

function drawButtons() {
  const here = placeOf(faces, face?.number);
  const changed = edits?.changed ?? false;
  $("undo").disabled = !edits?.done.length;
  $("redo").disabled = !edits?.undone.length;
  $("reset").disabled = !changed;
  const confirmed = face?.landmark_source === "manual";
  $("save").textContent = changed ? "Save" : confirmed ? "Saved" : "Confirm";
  $("save").title = changed || confirmed ? "" : "a person has looked: the points are right as they are";
  $("save").disabled = busy || !edits || (!changed && confirmed);
  $("previous").disabled = busy || here <= 0;
  $("following").disabled = busy || here < 0 || here === faces.length - 1;
  $("face").disabled = busy;
  const waiting = faces.filter(({ urgency }) => urgency > 0).length;
  $("urgent").textContent = `Next needing attention (${waiting})`;
  $("urgent").disabled = busy || nextUrgent(faces, face?.number) === null;
}

function drawFaces() {
  $("face").replaceChildren(...faces.map(optionOf));
  if (face) $("face").value = face.number;
}

function redraw() {
  draw();
  measuring.follow(edits);
}

// Do something with the server, one thing at a time; what it refuses is said, and nothing on the page is lost.
async function alone(work) {
  if (busy) return false;
  busy = true;
  drawButtons();
  try {
    await work();
    return true;
  } catch (error) {
    tell(error.message, { bad: true, again: error.status === 409 || error.status === 404 });
    return false;
  } finally {
    busy = false;
    drawButtons();
  }
}

async function show(number) {
  const wanted = faces.find((other) => other.number === number);
  const { points, version: found } = await server.placed(number);
  [face, version, edits, chosen] = [wanted, found, new Edits(points), null];
  measuring.forget();
  stage.showPicture(server.pictureAddress(number, version), face.width, face.height);
  stage.points = edits.points;
  stage.fit();
  showFacts(face);
  showMeasures(null, null);
  $("face").value = number;
  const which = `Face ${placeOf(faces, number) + 1} of ${faces.length}.`;
  tell(`${which} Drag a point; or choose one in the list, press Enter, then the arrow keys.`);
  redraw();
}

async function go(number) {
  if (number === null || number === face?.number) return;
  if (edits?.changed) {
    const answer = await asked();
    if (answer === "save") await save();
    if (answer === "stay" || (answer === "save" && edits.changed)) {
      $("face").value = face.number;
      return;
    }
  }
  if (!(await alone(() => show(number))) && face) $("face").value = face.number;
}

function asked() {
  const dialog = $("leaving");
  dialog.returnValue = "stay"; // also where Escape closes it
  dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener("close", () => resolve(dialog.returnValue), { once: true }));
}

function save() {
  return alone(async () => {
    tell("Saving …");
    const sent = edits.points.map(([x, y]) => [x, y]);
    const answer = await server.save(face.number, sent, version);
    version = answer.version;
    face = answer.face;
    faces = faces.map((other) => (other.number === face.number ? face : other));
    edits.rebase(answer.points);
    answer.points.forEach(([x, y], i) => {
      const [px, py] = edits.points[i]; // moved on while the answer was awaited?
      if (px === sent[i][0] && py === sent[i][1]) edits.place(i, x, y); // as stored, to single precision
    });
    measuring.forget();
    drawFaces();
    showFacts(face);
    redraw();
    tell("Saved.");
  });
}

function loadAgain() {
  return alone(async () => {
    const found = await server.faces();
    const same = found.find(({ number }) => number === face?.number);
    if (!same && edits?.changed) throw new Error("This face is no longer there. Its points stay shown; choose another face to go on.");
    faces = found;
    drawFaces();
    if (!same) {
      await show(faces[0].number);
      return;
    }
    const answer = await server.placed(same.number);
    [face, version] = [same, answer.version];
    const kept = edits.changed;
    if (kept) edits.rebase(answer.points);
    else edits = new Edits(answer.points);
    measuring.forget();
    stage.showPicture(server.pictureAddress(face.number, version), face.width, face.height);
    showFacts(face);
    redraw();
    tell(kept ? "Loaded again. Your points are kept as changes; Reset shows the saved ones." : "Loaded again.");
  });
}

function choose(index, { focus = false, pointed = false } = {}) {
  chosen = index;
  draw();
  if (!pointed) stage.reveal(index); // under a pointer the picture stays where it is
  list.reveal(index);
  if (focus) stage.marks[index].focus({ preventScroll: true });
}

function place(index, x, y) {
  const within = (value, size) => Math.min((1 + OUTSIDE) * size, Math.max(-OUTSIDE * size, value));
  edits.place(index, within(x, face.width), within(y, face.height));
}

function step(change, { onto = false } = {}) {
  edits.begin(onto);
  change();
  edits.end();
  redraw();
}

function onMarkKey(event) {
  const arrow = ARROWS[event.key];
  const index = Number(event.target.dataset.index);
  if (arrow && !event.ctrlKey && !event.altKey && !event.metaKey) {
    const length = event.shiftKey ? SHIFT_NUDGE : NUDGE;
    const [x, y] = edits.points[index];
    step(() => place(index, x + length * arrow[0], y + length * arrow[1]), { onto: event.repeat });
    stage.reveal(index);
    const [nx, ny] = edits.points[index];
    $("said").textContent = `x ${nx.toFixed(2)}, y ${ny.toFixed(2)}`;
  } else if (event.key === "Escape") $("points").focus();
  else return;
  event.preventDefault();
}

function onKey(event) {
  const key = event.key.toLowerCase();
  if (document.querySelector("dialog[open], .dragging") || !edits) return;
  if (event.ctrlKey || event.metaKey) {
    if (key === "z" && !event.shiftKey) undo();
    else if (key === "y" || key === "z") redo();
    else if (key === "s") {
      if (event.target.matches("#x, #y")) enterNumber(event.target.id); // typed, and not yet left
      $("save").click();
    }
    else return;
  } else if (event.target.matches("input, select, [role=listbox]")) return;
  else if (key === "+" || key === "=") stage.zoomStep(1);
  else if (key === "-") stage.zoomStep(-1);
  else if (key === "0") stage.fit();
  else return;
  event.preventDefault();
}

// The point goes where the field says; digits that a field does not show stay as they are.
function enterNumber(id) {
  const typed = $(id).valueAsNumber;
  const [x, y] = edits.points[chosen];
  if (!Number.isFinite(typed) || typed.toFixed(2) === (id === "x" ? x : y).toFixed(2)) return draw();
  return step(() => place(chosen, id === "x" ? typed : x, id === "y" ? typed : y));
}

function undo() {
  edits.undo();
  redraw();
}

function redo() {
  edits.redo();
  redraw();
}

function listen() {
  followPointers(stage, {
    begin: (index) => {
      edits.begin();
      choose(index, { focus: true, pointed: true });
    },
    place: (index, x, y) => {
      place(index, x, y);
      redraw();
    },
    finish: () => {
      edits.end();
      redraw();
    },
    cancel: () => {
      edits.undo();
      edits.undone.pop();
      redraw();
    },
  });
  $("marks").addEventListener("focusin", (event) => {
    const index = Number(event.target.dataset.index);
    if (index !== chosen) choose(index);
  });
  $("marks").addEventListener("keydown", onMarkKey);
  document.addEventListener("keydown", onKey);
  for (const id of ["x", "y"]) {
    $(id).addEventListener("change", () => enterNumber(id));
  }
  const beside = (d) => faces[placeOf(faces, face.number) + d].number;
  const clicks = {
    previous: () => go(beside(-1)),
    following: () => go(beside(1)),
    urgent: () => go(nextUrgent(faces, face.number)),
    undo,
    redo,
    reset: () => {
      edits.reset();
      redraw();
    },
    save,
    again: loadAgain,
    "zoom-in": () => stage.zoomStep(1),
    "zoom-out": () => stage.zoomStep(-1),
    help: () => $("keys").showModal(),
    "keys-close": () => $("keys").close(),
  };
  for (const [id, action] of Object.entries(clicks)) $(id).addEventListener("click", action);
  $("leaving").addEventListener("click", (event) => {
    if (event.target.value) $("leaving").close(event.target.value);
  });
  document.querySelectorAll("[data-zoom]").forEach((button) =>
    button.addEventListener("click", () => stage.fit(PARTS[button.dataset.zoom])),
  );
  $("face").addEventListener("change", () => go(Number($("face").value)));
  $("curves").addEventListener("change", () => $("lines").setAttribute("display", $("curves").checked ? "inline" : "none"));
  $("smooth").addEventListener("change", () => $("picture").classList.toggle("smooth", $("smooth").checked));
  $("mirror").addEventListener("change", () => ($("reflection").hidden = !$("mirror").checked));
  window.addEventListener("beforeunload", (event) => {
    if (edits?.changed) event.preventDefault();
  });
}

async function start() {
  const anatomy = await server.anatomy();
  stage = new Stage(anatomy);
  list = new PointList(anatomy, { choose, enter: (index) => choose(index, { focus: true }) });
  faces = await server.faces();
  drawFaces();
  listen();
  if (!faces.length) throw new Error("There is no face whose points could be corrected.");
  await alone(() => show(nextUrgent(faces) ?? faces[0].number));
}

// A browser may remember what was ticked before a reload.
for (const id of ["curves", "smooth", "mirror"]) $(id).checked = $(id).defaultChecked;
start().catch((error) => tell(error.message, { bad: true }));
