"use strict";
(() => {
  const root = document.documentElement;
  root.classList.add("has-js");

  // Colour scheme: automatic, light, dark; remembered where the browser allows it for local files.
  const button = document.getElementById("theme");
  const schemes = { "": "Auto", light: "Light", dark: "Dark" };
  const order = ["", "light", "dark"];
  const setTheme = (theme) => {
    if (theme) root.dataset.theme = theme;
    else delete root.dataset.theme;
    button.querySelector("span").textContent = schemes[theme];
    button.setAttribute("aria-label", "Colour scheme: " + schemes[theme].toLowerCase());
  };
  let theme = new URLSearchParams(location.search).get("theme") || "";
  try { theme = theme || localStorage.getItem("align-report-theme") || ""; } catch { /* storage is off */ }
  if (!order.includes(theme)) theme = "";
  setTheme(theme);
  button.addEventListener("click", () => {
    theme = order[(order.indexOf(theme) + 1) % order.length];
    setTheme(theme);
    try { localStorage.setItem("align-report-theme", theme); } catch { /* storage is off */ }
  });

  // Results: secondary metrics on demand, columns sorted by their headers.
  const table = document.getElementById("main-table");
  const secondary = document.getElementById("secondary");
  if (secondary) {
    const show = () => table.classList.toggle("only-primary", !secondary.checked);
    secondary.addEventListener("change", show);
    show();
  }
  const body = table.tBodies[0];
  const original = [...body.rows];

  // One comparison at a time, and only the tasks or metrics that are looked for.
  const step = document.getElementById("step");
  if (step) step.addEventListener("change", () => {
    for (const cell of table.querySelectorAll("[data-step]")) cell.hidden = cell.dataset.step !== step.value;
    document.getElementById("step-name").textContent = step.selectedOptions[0].textContent;
  });
  const findMetric = document.getElementById("find-metric");
  const names = (row) => (row.cells[0].textContent + " " + row.cells[1].textContent).toLowerCase();
  const findRows = () => {
    const word = findMetric.value.trim().toLowerCase();
    if (word && secondary) secondary.checked = true;
    if (secondary) table.classList.toggle("only-primary", !secondary.checked);
    for (const row of original) row.hidden = Boolean(word) && !names(row).includes(word);
    const shown = original.filter((row) => !row.hidden).length;
    document.getElementById("rows-shown").textContent = word ? shown + " of " + original.length + " shown" : "";
  };
  findMetric.addEventListener("input", findRows);
  const cellValue = (row, column) => {
    const cell = row.cells[column];
    const raw = cell.dataset.sort ?? cell.textContent.replace(/,/g, "");
    const value = raw.trim() === "" ? NaN : Number(raw);
    return Number.isNaN(value) ? raw : value;
  };
  const compare = (a, b) =>
    typeof a === "number" && typeof b === "number" ? a - b
    : typeof a === "number" ? -1
    : typeof b === "number" ? 1
    : a.localeCompare(b);
  for (const header of table.querySelectorAll("button.sort")) {
    header.addEventListener("click", () => {
      const cell = header.closest("th");
      const next = { ascending: "descending", descending: null }[cell.getAttribute("aria-sort")] ?? (cell.hasAttribute("aria-sort") ? null : "ascending");
      for (const other of table.querySelectorAll("th[aria-sort]")) other.removeAttribute("aria-sort");
      const rows = [...original];
      if (next) {
        cell.setAttribute("aria-sort", next);
        const column = cell.cellIndex;
        const sign = next === "ascending" ? 1 : -1;
        rows.sort((a, b) => sign * compare(cellValue(a, column), cellValue(b, column)));
      }
      body.append(...rows);
    });
  }

  // Paper cannot be unfolded.
  window.addEventListener("beforeprint", () => {
    for (const block of document.querySelectorAll("details.block")) block.open = true;
  });

  // Examples: by group and by word.
  const form = document.getElementById("filters");
  if (form) {
    const cards = [...document.querySelectorAll(".example")];
    const find = document.getElementById("find");
    const apply = () => {
      const chosen = new FormData(form);
      const stratum = chosen.get("stratum"), task = chosen.get("task");
      const word = find.value.trim().toLowerCase();
      let shown = 0;
      for (const card of cards) {
        const fits = (stratum === "all" || card.dataset.stratum === stratum)
          && (!task || card.dataset.task === task)
          && (!word || card.textContent.toLowerCase().includes(word));
        card.hidden = !fits;
        shown += fits;
      }
      document.getElementById("shown").textContent = shown + " of " + cards.length + " shown";
    };
    form.addEventListener("input", apply);
    form.addEventListener("submit", (event) => event.preventDefault());
    apply();
  }
})();
