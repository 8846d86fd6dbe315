// The list of events: newest first, filtered, paused; its rows are used again and again.

import * as dom from "./dom.js";

const { $, put } = dom;
const KEPT = 1000;
const ROWS = 100;
const box = $("feed");
let kept = [];
let fresh = 0;
let held = false;
let chosen = null;
let missed = 0;
let number = 0;
const streams = new Set();

function words(event) {
  if (!event.data) return "";
  if (event.type === "immediate-alert") return `${event.data.severity}: ${event.data.message}`;
  return Object.entries(event.data).map(([key, value]) => `${key}=${typeof value === "string" ? value : JSON.stringify(value)}`).join("  ");
}

function matches(one) {
  const stream = $("feed-stream").value;
  const text = $("feed-text").value.trim().toLowerCase();
  if (stream && one.event.subject !== stream) return false;
  if (!text) return true;
  one.lower ??= `${one.event.replay ? "replay " : ""}${one.event.subject} ${one.event.type || ""} #${one.event.seq || ""} ${one.note || words(one.event)}`.toLowerCase();
  return one.lower.includes(text);
}

function row() {
  number += 1;
  const element = dom.make("div", { id: `event-${number}`, className: "row" }, dom.make("time"), dom.make("b"), dom.make("span", { className: "at" }), dom.make("span", { className: "what" }));
  element.setAttribute("role", "option");
  element.setAttribute("aria-selected", "false");
  return element;
}

function fill(element, one) {
  const { event } = one;
  const [time, stream, at, what] = element.children;
  element.one = one;
  put(time, dom.clock(event.time));
  time.dateTime = event.time;
  put(stream, event.subject);
  put(at, event.seq ? `#${event.seq}` : "");
  put(what, one.note || words(event).slice(0, 400));
  dom.mark(element, "kind", one.note ? "gap" : event.replay ? "replay" : event.type === "immediate-alert" ? event.data.severity : "");
  return element;
}

function shown(list) {
  const spare = [...box.children];
  box.replaceChildren(...list.map((one) => fill(spare.pop() || row(), one)));
}

// From the newest on: as many as there is room for, of those that match.
function newest(list) {
  const found = [];
  for (let at = list.length - 1; at >= 0 && found.length < ROWS; at -= 1) {
    if (matches(list[at])) found.push(list[at]);
  }
  return found;
}

const draw = dom.painter(() => {
  if (!held) {
    const found = newest(kept.slice(kept.length - fresh));
    fresh = 0;
    for (const one of found.reverse()) {
      const element = box.children.length >= ROWS ? box.lastElementChild : row();
      element.setAttribute("aria-selected", "false");
      box.prepend(fill(element, one));
    }
  }
  note();
}, 200);

function note() {
  const filtered = $("feed-stream").value || $("feed-text").value.trim();
  const empty = !box.children.length;
  if (box.hidden !== empty) box.hidden = empty;
  if ($("feed-empty").hidden === empty) $("feed-empty").hidden = !empty;
  if (empty) put($("feed-empty"), filtered && kept.length ? `None of the last ${dom.whole(kept.length)} events matches.` : "Nothing has arrived yet.");
  const lost = missed ? ` · ${dom.whole(missed)} were skipped: this page could not keep up` : "";
  put($("feed-note"), (held ? `Paused · ${fresh >= KEPT ? "more than " : ""}${dom.count(fresh, "newer event")}` : "Newest first") + lost);
}

function keep(one) {
  kept.push(one);
  fresh = Math.min(fresh + 1, KEPT);
  // Cut now and then, not with each event
  if (kept.length > KEPT * 1.2) kept = kept.slice(-KEPT);
  if (one.event.subject && !streams.has(one.event.subject)) names([one.event.subject]);
  draw();
}

export function take(event) {
  keep({ event });
}

// What is older than everything in the list, in order.
export function before(events) {
  const have = new Set(kept.map((one) => one.event.id));
  const older = events.filter((event) => !have.has(event.id)).map((event) => ({ event }));
  // Not by their times: what is told late comes after what was told before
  kept = [...older, ...kept].slice(-KEPT);
  if (!held) again();
}

// A line that says what is not in the list.
export function gap(stream, time, note) {
  keep({ event: { subject: stream, time, data: null, id: `gap ${stream} ${time}` }, note });
}

export function lagging(total) {
  missed += total;
  draw();
}

// The streams that can be chosen; many are added a few at a time.
let unnamed = [];
const nameSome = dom.painter(() => {
  $("feed-stream").append(...unnamed.splice(0, 100).map((name) => dom.make("option", { value: name }, name)));
  if (unnamed.length) nameSome();
});

export function names(found) {
  for (const name of found) {
    if (streams.has(name)) continue;
    streams.add(name);
    unnamed.push(name);
    nameSome();
  }
}

function again() {
  fresh = 0;
  choose(null);
  shown(newest(kept));
  note();
}

export function hold(on = !held) {
  held = on;
  $("feed-hold").setAttribute("aria-pressed", String(held));
  dom.mark($("feed-hold"), "face", held ? 1 : 0);
  dom.mark(box, "held", held);
  if (held) return note();
  box.scrollTop = 0;
  return again();
}

// A chosen row must not wander off: choosing pauses.
function choose(element) {
  chosen?.setAttribute("aria-selected", "false");
  chosen = element;
  if (!element) return box.removeAttribute("aria-activedescendant");
  if (!held) hold(true);
  element.setAttribute("aria-selected", "true");
  element.scrollIntoView({ block: "nearest" });
  return box.setAttribute("aria-activedescendant", element.id);
}

function open(element) {
  const { event, note: gapped } = element.one;
  if (gapped) return;
  put($("event-title"), `${event.subject} #${event.seq}`);
  put($("event-about"), `${event.type} · ${event.time} · ${event.priority} · epoch ${event.epoch}${event.replay ? " · replayed" : ""}`);
  put($("event-text"), JSON.stringify(event, null, 2));
  $("event-dialog").showModal();
}

box.addEventListener("keydown", (press) => {
  const all = [...box.children];
  const at = all.indexOf(chosen);
  const goes = { ArrowDown: at + 1, ArrowUp: Math.max(0, at - 1), Home: 0, End: all.length - 1, PageDown: at + 10, PageUp: Math.max(0, at - 10) };
  if (press.key in goes) choose(all[Math.min(all.length - 1, goes[press.key])]);
  else if (press.key === "Enter" && chosen) open(chosen);
  else if (press.key === "Escape" && held) hold(false);
  else return;
  press.preventDefault();
  press.stopPropagation();
});
box.addEventListener("click", (click) => {
  const element = click.target.closest(".row");
  if (!element) return;
  choose(element);
  open(element);
});
// Who scrolls down reads; who comes back to the top wants what is new.
let byScroll = false;
box.addEventListener("scroll", () => {
  if (box.scrollTop > 40 && !held) {
    hold(true);
    byScroll = true;
  } else if (box.scrollTop === 0 && held && byScroll && !chosen) {
    byScroll = false;
    hold(false);
  }
}, { passive: true });
$("feed-hold").addEventListener("click", () => { byScroll = false; hold(); });
$("feed-stream").addEventListener("change", again);
$("feed-text").addEventListener("input", again);
$("feed-text").addEventListener("keydown", (press) => {
  if (press.key !== "Escape") return;
  $("feed-text").value = "";
  again();
});
