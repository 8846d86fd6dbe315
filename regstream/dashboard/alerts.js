// Alerts stay until they are seen: grouped by severity and source, remembered by this browser.

import * as dom from "./dom.js";

const { $, put } = dom;
const ORDER = ["CRITICAL", "WARNING", "INFO"];
const KEPT = 5000;
const GROUPS = 50;
const SHOWN = 30;
const EPOCHS = 5;
const groups = new Map();
const hidden = new Set();
const known = new Set();
let seen = dom.recall("seen", {});
let unseen = 0;
let given = 0;
let announced = 0;

function isSeen({ epoch, seq }) {
  const one = seen[epoch];
  return Boolean(one) && (seq <= one.upTo || one.more.includes(seq));
}

// Everything up to a number is one number; what was seen beyond it is listed.
function learn(events) {
  for (const { epoch, seq } of events) {
    seen[epoch] ??= { upTo: 0, more: [] };
    if (!isSeen({ epoch, seq })) seen[epoch].more.push(seq);
  }
  for (const one of Object.values(seen)) {
    one.more.sort((left, right) => left - right);
    while (one.more[0] === one.upTo + 1) one.upTo = one.more.shift();
    one.more = one.more.slice(-KEPT);
  }
  settle();
  seen = Object.fromEntries(Object.entries(seen).slice(-EPOCHS));
  dom.remember("seen", seen);
}

// Where nothing is unseen any more, the last number says all.
function settle() {
  const open = new Set([...groups.values()].flatMap((group) => group.events).filter((one) => !isSeen(one)).map((one) => one.epoch));
  for (const [epoch, one] of Object.entries(seen)) {
    if (!open.has(epoch) && one.more.length) Object.assign(one, { upTo: one.more[one.more.length - 1], more: [] });
  }
}

class Group {
  constructor(severity, source) {
    Object.assign(this, { severity, source, events: [], dropped: 0 });
    this.count = dom.make("b", { className: "times" });
    this.time = dom.make("time");
    this.text = dom.make("p", { className: "alert-text" });
    this.more = dom.make("ol");
    this.summary = dom.make("summary");
    this.details = dom.make("details", {}, this.summary, this.more);
    const button = dom.make("button", { type: "button" }, "Seen");
    button.setAttribute("aria-label", `Seen: ${severity} of ${source}`);
    button.addEventListener("click", () => see([this]));
    const head = dom.make("div", { className: "alert-head" }, dom.make("strong", {}, severity), dom.make("span", { className: "source", title: source }, source), this.count, button);
    this.element = dom.make("li", { data: { severity } }, head, dom.make("div", { className: "alert-line" }, this.text, this.time), this.details);
    this.details.addEventListener("toggle", () => this.list());
  }

  get size() {
    return this.events.length + this.dropped;
  }

  draw() {
    const last = this.events[this.events.length - 1];
    put(this.count, this.size > 1 ? `×${dom.whole(this.size)}` : "");
    put(this.text, last.data.message);
    put(this.time, dom.clock(last.time));
    this.details.hidden = this.size < 2;
    put(this.summary, `${dom.whole(this.size - 1)} earlier`);
    if (this.details.open) this.list();
  }

  list() {
    const earlier = this.details.open ? this.events.slice(-1 - SHOWN, -1).reverse() : [];
    const key = earlier.map((one) => one.id).join();
    if (key === this.key) return;
    this.key = key;
    const lines = earlier.map((one) => dom.make("li", {}, dom.make("time", {}, dom.clock(one.time)), dom.make("span", {}, one.data.message)));
    const rest = this.size - 1 - earlier.length;
    if (earlier.length && rest > 0) lines.push(dom.make("li", {}, dom.make("span", { className: "muted" }, `and ${dom.whole(rest)} before these`)));
    this.more.replaceChildren(...lines);
  }
}

function sizes(list) {
  return list.reduce((sum, group) => sum + group.size, 0);
}

function rank(one) {
  return ORDER.indexOf(one.severity);
}

const draw = dom.painter(() => {
  for (const [key, group] of groups) if (!group.events.length) groups.delete(key);
  const all = [...groups.values()];
  const list = all.filter((group) => !hidden.has(group.severity));
  list.sort((left, right) => rank(left) - rank(right) || right.last - left.last);
  list.slice(0, GROUPS).forEach((group) => group.draw());
  arrange($("alerts-list"), list.slice(0, GROUPS).map((group) => group.element));
  for (const chip of document.querySelectorAll("[data-severity][aria-pressed]")) {
    const mine = all.filter((group) => group.severity === chip.dataset.severity);
    put(chip.lastElementChild, dom.whole(sizes(mine)));
  }
  put($("jump-alerts"), dom.whole(unseen));
  $("jump-alerts").hidden = !unseen;
  $("alerts-all").disabled = !unseen;
  $("alerts-box").hidden = !list.length;
  $("alerts-empty").hidden = list.length > 0;
  put($("alerts-empty"), unseen ? "None of these severities." : given ? "Nothing unseen. All alerts were seen." : "Nothing unseen.");
  document.title = unseen ? `(${dom.whole(unseen)}) regstream` : "regstream";
  announce();
}, 400);

// Elements that stay keep their place in the document, and with it the focus.
function arrange(list, elements) {
  const wanted = new Set(elements);
  for (const one of [...list.children]) if (!wanted.has(one)) one.remove();
  elements.forEach((one, at) => {
    if (list.children[at] !== one) list.insertBefore(one, list.children[at] || null);
  });
}

// Said now and then, not with each alert.
function announce() {
  const now = performance.now();
  if (now - announced < 5000 || !unseen) return;
  announced = now;
  const critical = [...groups.values()].filter((one) => one.severity === "CRITICAL");
  put($("alerts-say"), `${dom.count(unseen, "unseen alert")}, ${dom.whole(sizes(critical))} critical`);
}

function keyOf(severity, source) {
  return `${severity}\n${source}`;
}

function add(event) {
  const { severity, stream, scenario } = event.data;
  const source = [scenario, stream].filter(Boolean).join(" · ") || "the daemon";
  const key = keyOf(severity, source);
  if (!groups.has(key)) groups.set(key, new Group(severity, source));
  const group = groups.get(key);
  group.events.push(event);
  group.last = Math.max(group.last || 0, Date.parse(event.time));
  unseen += 1;
}

export function take(event) {
  if (known.has(event.id)) return;
  known.add(event.id);
  if (known.size > 4 * KEPT) known.delete(known.values().next().value);
  given += 1;
  if (!isSeen(event)) add(event);
  if (unseen > KEPT) shed();
  draw();
}

// More than anybody reads: of the largest group the oldest are only counted from now on.
function shed() {
  const largest = [...groups.values()].sort((left, right) => right.events.length - left.events.length)[0];
  if (largest.events.length > 200) largest.dropped += largest.events.splice(0, 100).length;
}

function see(list) {
  const before = structuredClone(seen);
  const undone = list.map((group) => ({ group, events: group.events, dropped: group.dropped }));
  const mine = list.flatMap((group) => group.events);
  const size = sizes(list);
  learn(mine);
  for (const group of list) Object.assign(group, { events: [], dropped: 0 });
  unseen = sizes([...groups.values()]);
  // The button that was pressed is about to go
  if ($("alerts").contains(document.activeElement)) $("alerts").focus({ preventScroll: true });
  draw();
  dom.say(`${dom.count(size, "alert")} seen`, "good", () => unsee(undone, before));
}

function unsee(undone, before) {
  seen = before;
  dom.remember("seen", seen);
  for (const { group, events, dropped } of undone) {
    const key = keyOf(group.severity, group.source);
    if (!groups.has(key)) groups.set(key, group);
    const into = groups.get(key);
    into.events = [...events, ...into.events];
    into.dropped += dropped;
  }
  unseen = sizes([...groups.values()]);
  draw();
}

export function seeAll() {
  if (unseen) see([...groups.values()]);
}

$("alerts-all").addEventListener("click", seeAll);
for (const chip of document.querySelectorAll("[data-severity][aria-pressed]")) {
  chip.addEventListener("click", () => {
    const { severity } = chip.dataset;
    if (hidden.has(severity)) hidden.delete(severity);
    else hidden.add(severity);
    chip.setAttribute("aria-pressed", String(!hidden.has(severity)));
    draw();
  });
}
