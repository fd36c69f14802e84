"use strict";
// The theme is set before the page is drawn, so that it does not flash; the rest waits for the page.
const root = document.documentElement;
const memory = {
  read() { try { return localStorage.getItem("demiglace-theme"); } catch { return null; } },
  write(theme) { try { localStorage.setItem("demiglace-theme", theme); } catch { /* a private window forgets it */ } },
};
const remembered = memory.read();
if (remembered === "light" || remembered === "dark") root.dataset.theme = remembered;

function isDark() {
  return root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function setUpTheme(button) {
  const label = () => { button.textContent = isDark() ? "Light theme" : "Dark theme"; };
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    memory.write(root.dataset.theme);
    label();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", label);
  label();
  button.hidden = false;
}

function keyOf(row, column) {
  const cell = row.cells[column];
  return cell.dataset.value === undefined ? cell.textContent.trim() : Number(cell.dataset.value);
}

// Numbers by size, texts by the alphabet, what was not measured ("–") always last.
function compare(a, b, sign) {
  const missing = (key) => key === "–";
  if (missing(a) || missing(b)) return missing(a) - missing(b);
  if (typeof a === "number" && typeof b === "number") return sign * (a - b);
  return sign * String(a).localeCompare(String(b), "en", { numeric: true });
}

function sortBy(table, heads, column) {
  const falling = heads[column].getAttribute("aria-sort") === "ascending";
  const body = table.tBodies[0];
  const rows = [...body.rows].sort((a, b) => compare(keyOf(a, column), keyOf(b, column), falling ? -1 : 1));
  body.append(...rows);
  heads.forEach((head, i) => {
    if (i === column) head.setAttribute("aria-sort", falling ? "descending" : "ascending");
    else head.removeAttribute("aria-sort");
  });
}

function setUpSorting(table) {
  if (table.tBodies[0].rows.length < 2) return;
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sortBy(table, heads, column));
    head.append(button);
  });
}

// What a mark says is shown beside it under the pointer, and with the arrow keys once its drawing has the focus.
function setUpTips(tip) {
  const show = (mark, where) => {
    tip.textContent = mark.dataset.tip;
    tip.hidden = false;
    const at = mark.getBoundingClientRect();
    const left = at.left + at.width / 2 - tip.offsetWidth / 2;
    tip.style.left = `${Math.max(8, Math.min(left, root.clientWidth - tip.offsetWidth - 8))}px`;
    tip.style.top = `${at.top > tip.offsetHeight + 12 ? at.top - tip.offsetHeight - 8 : at.bottom + 8}px`;
    where.querySelectorAll(".is-at").forEach((m) => m.classList.remove("is-at"));
    mark.classList.add("is-at");
  };
  const hide = (where) => {
    tip.hidden = true;
    where.querySelectorAll(".is-at").forEach((m) => m.classList.remove("is-at"));
  };
  document.querySelectorAll(".chart > svg, [data-tips]").forEach((where) => {
    const marks = [];
    where.querySelectorAll(".dot > title").forEach((t) => { marks.push(t.parentNode); t.parentNode.dataset.tip = t.textContent; t.remove(); });
    where.querySelectorAll("[title]").forEach((m) => { marks.push(m); m.dataset.tip = m.title; m.removeAttribute("title"); });
    if (!marks.length) return;
    let place = -1;
    where.tabIndex = 0;
    where.addEventListener("pointerover", (e) => { const m = e.target.closest("[data-tip]"); if (m) show(m, where); else hide(where); });
    where.addEventListener("pointerleave", () => hide(where));
    where.addEventListener("blur", () => hide(where));
    where.addEventListener("keydown", (e) => {
      const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[e.key];
      if (e.key === "Escape") hide(where);
      if (!by) return;
      e.preventDefault();
      const seen = marks.filter((m) => m.checkVisibility());
      place = place < 0 && by < 0 ? seen.length - 1 : (place + by + seen.length) % seen.length;
      show(seen[place], where);
    });
  });
  addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });
}

function openTarget() {
  const target = location.hash && document.getElementById(location.hash.slice(1));
  const closed = target && target.closest("details");
  if (closed) { closed.open = true; target.scrollIntoView({ block: "center" }); }
}

document.addEventListener("DOMContentLoaded", () => {
  setUpTheme(document.getElementById("theme"));
  setUpTips(document.getElementById("tip"));
  openTarget();
  addEventListener("hashchange", openTarget);
  document.querySelectorAll("table.sortable").forEach(setUpSorting);
});
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((d) => { d.open = true; }));
