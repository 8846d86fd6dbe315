// Single keys, dialogs and the theme.

import * as dom from "./dom.js";
import * as alerts from "./alerts.js";
import * as feed from "./feed.js";
import * as tiles from "./tiles.js";

const { $ } = dom;
const PARTS = { s: "streams", a: "alerts", e: "events", c: "scenarios", r: "files", h: "health" };
const THEMES = ["auto", "light", "dark"];

export function go(id) {
  $(id).scrollIntoView({ block: "start" });
  $(id).focus({ preventScroll: true });
}

const DOES = {
  j: () => tiles.move(1),
  k: () => tiles.move(-1),
  f: () => feed.hold(),
  m: () => alerts.seeAll(),
  "/": () => { go("events"); $("feed-text").focus(); },
  "?": () => $("help-dialog").showModal(),
};

function press(event) {
  const typing = event.target.closest("input, select, textarea, [contenteditable]");
  if (event.ctrlKey || event.metaKey || event.altKey || typing || document.querySelector("dialog[open]")) return;
  if (event.key !== "?" && !$("help-on").checked) return;
  const { key } = event;
  if ("pbt".includes(key) && tiles.press(key)) event.preventDefault();
  else if (key in PARTS) go(PARTS[key]);
  else if (key in DOES) DOES[key]();
  else return;
  event.preventDefault();
}

function theme(name) {
  document.documentElement.dataset.theme = name;
  $("theme").lastElementChild.textContent = name;
  // Styles are in force in the next frame
  requestAnimationFrame(tiles.recolor);
}

export function listen() {
  document.addEventListener("keydown", press);
  $("help").addEventListener("click", () => $("help-dialog").showModal());
  for (const button of document.querySelectorAll("[data-close]")) {
    button.addEventListener("click", () => button.closest("dialog").close());
  }
  for (const dialog of document.querySelectorAll("dialog")) {
    // A press outside of it, which is on the dialog itself, closes it
    dialog.addEventListener("pointerdown", (event) => event.target === dialog && dialog.close());
  }
  $("help-on").checked = dom.recall("keys", true);
  $("help-on").addEventListener("change", () => dom.remember("keys", $("help-on").checked));
  let at = Math.max(0, THEMES.indexOf(dom.recall("theme", "auto")));
  theme(THEMES[at]);
  $("theme").addEventListener("click", () => {
    at = (at + 1) % THEMES.length;
    theme(THEMES[at]);
    dom.remember("theme", THEMES[at]);
  });
  // Asking for the scheme makes the browser work out all styles: not while the page is still being built
  setTimeout(() => matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => requestAnimationFrame(tiles.recolor)));
}
