"use strict";
// The page is whole without this script. It only hides and orders what is there.
(() => {
  const form = document.getElementById("filter");
  const patients = [...document.querySelectorAll("details.patient")];
  if (!form || !patients.length) return;
  form.hidden = false;
  const status = document.getElementById("shown");
  const list = document.getElementById("patients");
  const opened = new Set(patients.filter((part) => part.open));

  const filter = () => {
    const want = Object.fromEntries(new FormData(form));
    const text = want.text.trim().toLowerCase();
    const active = Boolean(text || want.flag || want.movement || want.split || want.grade);
    let photographs = 0, people = 0;
    for (const part of patients) {
      const whose = part.dataset.subject.toLowerCase().includes(text);
      let left = 0;
      for (const row of part.querySelectorAll("tbody tr")) {
        const flags = row.dataset.f ? row.dataset.f.split(" ") : [];
        const keep = (whose || row.id === "e" + text)
          && (!want.flag || (want.flag === "any" ? flags.length > 0 : flags.includes(want.flag)))
          && (!want.movement || row.dataset.m === want.movement)
          && (!want.split || part.dataset.split === want.split)
          && (!want.grade || row.dataset.g === want.grade);
        row.hidden = !keep;
        if (keep) left += 1;
      }
      part.hidden = left === 0;
      photographs += left;
      if (left) people += 1;
    }
    // Many tables at once would make the page slow.
    const few = active && people <= 40;
    for (const part of patients) part.open = few ? !part.hidden : opened.has(part);
    status.textContent = active ? `${photographs} photographs of ${people} patients shown` : "";
  };

  const order = () => {
    const by = form.elements.order.value;
    const key = (part) => Number(part.dataset[by]);
    const sorted = [...patients];
    if (by !== "subject") sorted.sort((a, b) => key(b) - key(a));
    list.append(...sorted);
  };

  // A column is sorted by a button in its header, made when a table is first opened.
  const value = (row, column) => {
    const cell = row.cells[column];
    const text = cell.dataset.v ?? cell.textContent.trim();
    const number = Number(text);
    return text !== "" && Number.isFinite(number) ? number : text;
  };
  const sortable = (part) => {
    const table = part.querySelector("table");
    if (!table || table.dataset.ready) return;
    table.dataset.ready = "yes";
    for (const head of table.tHead.rows[0].cells) {
      if (!head.hasAttribute("data-sort")) continue;
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const rows = [...table.tBodies[0].rows];
        rows.sort((a, b) => {
          const x = value(a, head.cellIndex), y = value(b, head.cellIndex);
          if (typeof x !== typeof y) return typeof x === "number" ? -1 : 1;
          const less = x < y ? -1 : x > y ? 1 : 0;
          return down ? -less : less;
        });
        table.tBodies[0].append(...rows);
      });
    }
  };
  for (const part of patients) {
    if (part.open) sortable(part);
    part.addEventListener("toggle", () => { if (part.open) sortable(part); });
  }

  form.addEventListener("input", (event) => { if (event.target.name !== "order") filter(); });
  form.addEventListener("change", (event) => { if (event.target.name === "order") order(); });
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(() => { filter(); order(); }));
})();
