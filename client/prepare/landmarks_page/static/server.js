// What the page asks its server. A refusal is an Error whose text may be shown and whose `status` says of what kind.

async function ask(address, options = {}) {
  let answer;
  try {
    answer = await fetch(address, { cache: "no-store", credentials: "same-origin", ...options });
  } catch {
    throw new Error("The program does not answer; has it been ended? Your points are kept in this page.");
  }
  const body = await answer.json().catch(() => ({}));
  if (!answer.ok) {
    throw Object.assign(new Error(body.error ?? `The program refused with ${answer.status}.`), { status: answer.status });
  }
  return body;
}

const post = (address, body) =>
  ask(address, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });

export const anatomy = () => ask("/static/anatomy.json");
export const faces = async () => (await ask("/faces")).faces;
export const placed = (number) => ask(`/points/${number}`);
export const measure = (points) => post("/measure", { points });
export const save = (number, points, version) => post("/save", { number, points, version });
export const pictureAddress = (number, version) => `/picture/${number}?version=${version}`;
