// The faces on the desk: their line in the choice of faces, and which is to be looked at next.

import { words } from "/static/panel.js";

export function optionOf({ number, subject, session, movement, landmark_source: source, urgency }) {
  const state = urgency === 2 ? "flagged" : source === "manual" ? "done" : urgency ? "to check" : "";
  const parts = [String(number), subject, words(movement), `session ${session}`, state];
  return new Option(parts.filter(Boolean).join(" · "), number);
}

export const placeOf = (faces, number) => faces.findIndex((face) => face.number === number);

// The next face, in a circle, of the most urgent kind that there is beside the one on the page; null = none.
export function nextUrgent(faces, number) {
  const here = placeOf(faces, number);
  const others = [...faces.slice(here + 1), ...faces.slice(0, Math.max(0, here))].filter(({ urgency }) => urgency > 0);
  const most = Math.max(...others.map(({ urgency }) => urgency));
  return others.find(({ urgency }) => urgency === most)?.number ?? null;
}
