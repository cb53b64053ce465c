// The points of one face while a person works on them: what is saved, what is shown, and every step between.

const LONGEST = 1000; // steps that can be undone

const copy = (points) => points.map(([x, y]) => [x, y]);
const same = (a, b) => a.every(([x, y], i) => x === b[i][0] && y === b[i][1]);

export class Edits {
  constructor(saved) {
    this.saved = copy(saved);
    this.points = copy(saved);
    this.done = [];
    this.undone = [];
  }

  get changed() {
    return !same(this.points, this.saved);
  }

  moved(index) {
    return this.points[index][0] !== this.saved[index][0] || this.points[index][1] !== this.saved[index][1];
  }

  // Call before a step; `onto` = the step goes on with the last one (a key that is held down).
  begin(onto = false) {
    if (!(onto && this.done.length)) {
      this.done.push(copy(this.points));
      this.done.splice(0, this.done.length - LONGEST);
    }
    this.undone = [];
  }

  // Call after a step that may have come to nothing.
  end() {
    if (this.done.length && same(this.done.at(-1), this.points)) this.done.pop();
  }

  place(index, x, y) {
    this.points[index] = [x, y];
  }

  undo() {
    this.#step(this.done, this.undone);
  }

  redo() {
    this.#step(this.undone, this.done);
  }

  reset() {
    this.begin();
    this.points = copy(this.saved);
    this.end();
  }

  // New saved points; what was placed by hand stays, as a change against them.
  rebase(saved) {
    this.saved = copy(saved);
  }

  #step(from, to) {
    if (!from.length) return;
    to.push(copy(this.points));
    this.points = from.pop();
  }
}
