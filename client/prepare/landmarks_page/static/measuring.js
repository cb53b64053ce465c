// Measures of the points on the page as the server computes them, so that there is one definition of each.

import { showMeasures } from "/static/panel.js";
import { measure } from "/static/server.js";

export class Measuring {
  // Those of the saved points are asked for anew; an answer that is still awaited is not shown.
  forget() {
    this.state = { saved: null, running: false, again: false };
  }

  // While an answer is awaited only the last wish is kept.
  async follow(edits) {
    const { state } = this;
    if (state.running) {
      state.again = true;
      return;
    }
    state.running = true;
    try {
      do {
        state.again = false;
        state.saved ??= (await measure(edits.saved)).measures;
        const now = (await measure(edits.points)).measures;
        if (state !== this.state) return; // another face, or other saved points, are on the page
        showMeasures(now, state.saved);
      } while (state.again);
    } catch {
      if (state === this.state) showMeasures(null, state.saved); // what is wrong is said when points are saved
    } finally {
      state.running = false;
    }
  }
}
