"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];

  // --- tables: sort by a heading, filter by words and by choices
  const key = (row, place) => {
    const cell = row.cells[place];
    const value = cell.dataset.v ?? cell.textContent;
    if (value === "" || value === "–") return null;
    const number = Number(value.replaceAll(",", ""));
    return Number.isNaN(number) ? value : number;
  };
  const compare = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true }));
  const sort = (table, heading) => {
    const place = heading.cellIndex;
    const ascending = heading.getAttribute("aria-sort") !== "ascending";
    all("thead th", table).forEach((th) => th.setAttribute("aria-sort", "none"));
    heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    const keyed = all("tbody tr", table).map((row) => [key(row, place), row]);
    keyed.sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null); // what is not known comes last either way
      return ascending ? compare(a, b) : compare(b, a);
    });
    table.tBodies[0].append(...keyed.map(([, row]) => row));
  };
  all("thead button").forEach((button) => button.addEventListener("click", () => sort(button.closest("table"), button.parentElement)));

  all("form.filters").forEach((form) => {
    const rows = all("tbody tr", document.getElementById(form.dataset.for));
    const texts = new Map(rows.map((row) => [row, row.textContent.toLowerCase() + " " + all("th,td", row).map((c) => c.textContent.toLowerCase()).join(" ")]));
    const update = () => {
      const words = form.querySelector("input").value.toLowerCase().split(/\s+/).filter(Boolean);
      const choices = all("select", form).filter((select) => select.value);
      let shown = 0;
      for (const row of rows) {
        const fits = words.every((word) => texts.get(row).includes(word)) && choices.every((select) => row.cells[select.dataset.column].textContent === select.value);
        row.hidden = !fits;
        shown += fits;
      }
      form.querySelector("output").textContent = shown === rows.length ? `${shown} lines` : `${shown} of ${rows.length} lines`;
    };
    form.addEventListener("input", update);
    form.addEventListener("submit", (event) => event.preventDefault());
  });

  // --- charts: a legend entry singles out its solver, while pointed at or for good
  all("figure").forEach((figure) => {
    const buttons = all(".legend button", figure);
    if (!buttons.length) return;
    const marks = all(".series", figure);
    const show = (extra) => {
      const chosen = new Set(buttons.filter((b) => b.getAttribute("aria-pressed") === "true").map((b) => b.dataset.series));
      if (extra) chosen.add(extra);
      figure.classList.toggle("single", chosen.size > 0);
      marks.forEach((mark) => mark.classList.toggle("on", chosen.has(mark.dataset.series)));
    };
    buttons.forEach((button) => {
      button.addEventListener("click", () => {
        button.setAttribute("aria-pressed", String(button.getAttribute("aria-pressed") !== "true"));
        show();
      });
      for (const event of ["mouseenter", "focus"]) button.addEventListener(event, () => show(button.dataset.series));
      for (const event of ["mouseleave", "blur"]) button.addEventListener(event, () => show());
    });
  });

  // --- commands to copy
  all(".copy").forEach((button) => {
    button.addEventListener("click", async () => {
      const code = button.parentElement.querySelector("code");
      try {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(code); // without leave to use the clipboard the reader can still press Ctrl+C
        button.textContent = "Selected";
      }
      setTimeout(() => { button.textContent = "Copy"; }, 2000);
    });
  });

  // --- pages: the overview, or one workload
  const overview = document.getElementById("overview");
  const pages = all("section.page");
  const links = all("header nav a");
  const route = (moved) => {
    const target = location.hash ? document.getElementById(decodeURIComponent(location.hash.slice(1))) : null;
    const page = target?.closest("section.page") ?? null;
    overview.hidden = page !== null;
    pages.forEach((section) => { section.hidden = section !== page; });
    const part = page ? "#workloads" : location.hash || "#summary";
    links.forEach((link) => (link.hash === part ? link.setAttribute("aria-current", "true") : link.removeAttribute("aria-current")));
    if (!moved || !target) return;
    // The browser scrolled before the page was shown.
    if (page === target) scrollTo(0, 0);
    else target.scrollIntoView();
    (target.querySelector("h2") ?? target).focus({ preventScroll: true });
  };
  // A jump to #content would leave the page that is shown.
  document.querySelector(".skip").addEventListener("click", (event) => {
    event.preventDefault();
    document.getElementById("content").focus();
  });
  addEventListener("hashchange", () => route(true));
  route(Boolean(location.hash));
  document.documentElement.dataset.ready = "true";
})();
