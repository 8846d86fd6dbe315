// A tile for each stream: where it stands by what the API says, and what arrives drawn at once.

import * as dom from "./dom.js";
import { Chart, Counts } from "./chart.js";

const { $, call, put } = dom;
const VALUES = 4;
const SLICE = 8;
const FEW = 12;
const MOST = 60;
const FACES = ["Pause", "Resume", "Start"];
const TONES = { running: "good", paused: "idle", stopped: "idle", failing: "bad" };
export const tiles = new Map();
export const total = new Counts();
const sum = new Chart($("stat-chart"), total);

// What arrived of a stream is kept apart from its tile, which is made when the API has told of the stream.
const records = new Map();

function record(name) {
  if (!records.has(name)) records.set(name, { counts: new Counts(), latest: null });
  return records.get(name);
}

function path(name) {
  return `${dom.API}/streams/${encodeURIComponent(name)}`;
}

class Tile {
  constructor(stream, refresh) {
    this.refresh = refresh;
    this.stream = stream;
    this.record = record(stream.name);
    this.counts = this.record.counts;
    this.element = $("tile-template").content.firstElementChild.cloneNode(true);
    this.part = (name) => this.element.querySelector(`.${name}`);
    for (const name of ["state", "rate", "peak", "seq", "missed", "late", "last", "values", "priority", "when", "overlays"]) this[name] = this.part(name);
    this.error = this.part("tile-error");
    this.canvas = this.part("chart");
    this.chart = new Chart(this.canvas, this.counts);
    this.hover = false;
    this.paint = dom.painter(() => this.drawEvent(), 200);
    this.name();
    this.drawPeak();
    this.listen();
  }

  name() {
    const { name } = this.stream;
    const id = `tile-${name}`;
    Object.assign(this.element.querySelector("h3"), { id, textContent: name, title: name });
    this.element.setAttribute("aria-labelledby", id);
    this.element.dataset.stream = name;
    this.part("pause").setAttribute("aria-label", `Pause ${name}`);
    this.part("tune").setAttribute("aria-label", `Tune ${name}`);
    this.part("burst").elements[0].setAttribute("aria-label", `How many events of ${name}`);
    this.part("burst").elements[1].setAttribute("aria-label", `Burst ${name}`);
  }

  listen() {
    const pause = this.part("pause");
    pause.addEventListener("click", () => dom.attempt(pause, () => this.toggle()));
    this.part("tune").addEventListener("click", () => tune(this.stream, this.refresh));
    this.part("burst").addEventListener("submit", (submit) => {
      submit.preventDefault();
      const [count, button] = submit.target.elements;
      dom.attempt(button, () => this.burst(Number(count.value)));
    });
    this.canvas.addEventListener("pointermove", (move) => { this.hover = true; this.point(move); });
    this.canvas.addEventListener("pointerleave", () => { this.hover = false; this.drawPeak(); });
  }

  // What the first button does: a stream that takes no part is first of all to be started.
  get verb() {
    if (!this.stream.enabled) return "Start";
    return this.stream.paused ? "Resume" : "Pause";
  }

  async toggle() {
    const { name } = this.stream;
    if (this.verb === "Start") await call("POST", `${dom.API}/start`, { streams: [name] });
    else await call("POST", `${path(name)}/${this.verb.toLowerCase()}`);
    await this.refresh();
  }

  async burst(count) {
    const made = await call("POST", `${dom.API}/burst`, { streamType: this.stream.name, count });
    dom.say(`${dom.count(made.count, "event")} of ${made.streamType}: ${dom.whole(made.firstSeq)} to ${dom.whole(made.lastSeq)}`);
    await this.refresh();
  }

  // What the API says.
  show(stream) {
    const moved = stream.epoch !== this.stream.epoch;
    this.stream = stream;
    if (moved && this.record.latest?.epoch !== stream.epoch) this.record.latest = null;
    // The API tells what a stream would do; while streaming as a whole is stopped, it does nothing
    const state = stream.state === "running" && !streaming ? "stopped" : stream.state;
    dom.lamp(this.state, TONES[state], state);
    dom.mark(this.element, "state", state);
    put(this.priority, stream.priority);
    dom.mark(this.priority, "priority", stream.priority);
    put(this.when, this.about());
    this.part("tile-about").title = stream.description;
    this.overlays.hidden = !stream.overlays.length;
    put(this.overlays, dom.count(stream.overlays.length, "RUN"));
    put(this.rate, dom.rate(stream.actualRate));
    put(this.missed, dom.whole(stream.missed));
    dom.mark(this.missed, "tone", stream.missed ? "wait" : "idle");
    put(this.late, stream.lateMs === null ? "–" : `${dom.fixed(Math.min(99999, stream.lateMs), 1)} ms`);
    this.error.hidden = !stream.error;
    put(this.error, stream.error || "");
    const face = FACES.indexOf(this.verb);
    dom.mark(this.part("pause"), "face", face);
    this.part("pause").setAttribute("aria-label", `${FACES[face]} ${stream.name}`);
    this.drawEvent();
  }

  about() {
    const { batchSize, interval, schedule, timezone, targetRate, event } = this.stream;
    const when = interval !== null ? `every ${dom.interval(interval)}`
      : schedule !== null ? `at ${schedule} ${timezone}` : `when they come, ${dom.rate(targetRate)}/s now`;
    // A stream that follows has no size: what has changed is told
    const size = interval !== null && targetRate === null ? "changes," : dom.whole(batchSize);
    return `${size} ${when} · ${event}`;
  }

  drawEvent() {
    const { stream, record: { latest } } = this;
    const same = latest && latest.epoch === stream.epoch;
    put(this.seq, dom.whole(same ? Math.max(latest.seq, stream.seq) : stream.seq));
    put(this.last, dom.clock(same ? latest.time : stream.last));
    if (latest) this.drawValues(latest.data);
  }

  drawValues(data) {
    const pairs = Object.entries(data).slice(0, VALUES);
    while (this.values.children.length < pairs.length) {
      this.values.append(dom.make("div", {}, dom.make("dt"), dom.make("dd")));
    }
    while (this.values.children.length > pairs.length) this.values.lastChild.remove();
    pairs.forEach(([key, value], at) => {
      const [term, text] = this.values.children[at].children;
      put(term, key);
      put(text, typeof value === "string" ? value.slice(0, 200) : JSON.stringify(value).slice(0, 200));
    });
  }

  point(move) {
    const { ago, number } = this.chart.under(move.clientX);
    put(this.peak, `${dom.whole(number)} ${ago ? `${ago} s ago` : "now"}`);
  }

  drawPeak() {
    if (this.hover) return;
    const peak = this.counts.peak;
    put(this.peak, peak ? `peak ${dom.whole(peak)} /s` : "nothing in two minutes");
    const words = `Events a second of ${this.stream.name} over two minutes: now ${dom.rate(this.stream.actualRate)}, at most ${peak}`;
    if (this.canvas.getAttribute("aria-label") !== words) this.canvas.setAttribute("aria-label", words);
  }

  tick(second) {
    this.counts.move(second);
    if (!this.chart.visible) return;
    this.drawPeak();
    this.chart.draw();
  }

  end() {
    this.chart.end();
    this.element.remove();
  }
}

// The streams as the API lists them, those that are looked for, and no more than anybody overlooks. New tiles and
// changed ones are done a few a frame, so that many hold nothing up.
let streaming = false;
let all = [];
let wanted = [];
let behind = new Map();
let refreshing = null;

const work = dom.painter(() => {
  const until = performance.now() + SLICE;
  for (const [name, stream] of behind) {
    if (performance.now() > until) break;
    behind.delete(name);
    if (!tiles.has(name)) add(name, stream);
    tiles.get(name).show(stream);
  }
  if (behind.size) work();
});

function add(name, stream) {
  tiles.set(name, new Tile(stream, () => refreshing()));
  // Before the next one in order that is there
  const later = wanted.slice(wanted.findIndex((one) => one.name === name) + 1).find((one) => tiles.has(one.name));
  if (tiles.size === 1) $("tiles").replaceChildren();
  $("tiles").insertBefore(tiles.get(name).element, later ? tiles.get(later.name).element : null);
}

function choose() {
  const text = $("streams-find").value.trim().toLowerCase();
  const found = !text ? all : all.filter((one) => `${one.name} ${one.event} ${one.description} ${one.state}`.toLowerCase().includes(text));
  wanted = found.slice(0, MOST);
  // First those that are not there at all
  const pairs = wanted.map((one) => [one.name, one]);
  behind = new Map([...pairs.filter(([name]) => !tiles.has(name)), ...pairs]);
  for (const [name, tile] of tiles) {
    if (behind.has(name)) continue;
    tile.end();
    tiles.delete(name);
  }
  if (!wanted.length) $("tiles").replaceChildren();
  $("tiles-empty").hidden = wanted.length > 0;
  put($("tiles-empty"), all.length ? "No stream matches." : "No stream is declared. Add one to streams.yaml and save: it shows here a second later.");
  put($("streams-note"), wanted.length < all.length ? `${dom.whole(wanted.length)} of ${dom.whole(all.length)}` : "Last two minutes, by the second");
  work();
}

export function show(streams, isStreaming, refresh) {
  all = streams;
  streaming = isStreaming;
  refreshing = refresh;
  const names = new Set(streams.map((one) => one.name));
  for (const name of records.keys()) if (!names.has(name)) records.delete(name);
  $("streams-find").hidden = streams.length <= FEW;
  choose();
}

$("streams-find").addEventListener("input", choose);

// What arrived; `past` is shown, but was counted before or never will be.
export function take(event, past) {
  const second = Math.floor(Date.parse(event.time) / 1000);
  const mine = record(event.subject);
  if (!past) {
    total.add(second);
    mine.counts.add(second);
  }
  if (!mine.latest || event.epoch !== mine.latest.epoch || event.seq > mine.latest.seq) mine.latest = event;
  tiles.get(event.subject)?.paint();
}

// What was before this page was open, in order.
export function before(event) {
  const { latest } = record(event.subject);
  take(event, false);
  if (latest && latest.seq > event.seq) record(event.subject).latest = latest;
}

// A new second on the daemon's clock.
export function tick(now) {
  const second = Math.floor(now / 1000);
  total.move(second);
  sum.draw();
  for (const tile of tiles.values()) tile.tick(second);
}

export function recolor() {
  for (const chart of [sum, ...[...tiles.values()].map((tile) => tile.chart)]) {
    chart.color = "";
    chart.draw();
  }
}

export function move(step) {
  const all = [...$("tiles").querySelectorAll("article")];
  const at = all.findIndex((one) => one.contains(document.activeElement));
  const next = all[at < 0 ? (step > 0 ? 0 : all.length - 1) : Math.min(all.length - 1, Math.max(0, at + step))];
  next?.focus();
}

// What a key does to the tile in which the focus is; whether there is one.
export function press(name) {
  const tile = document.activeElement?.closest(".tile");
  const button = tile?.querySelector({ p: ".pause", b: ".burst button", t: ".tune" }[name]);
  button?.click();
  return Boolean(button);
}

// The dialog that changes interval, batch size, priority and whether a stream takes part.
let tuned = null;

function tune(stream, refresh) {
  tuned = { stream, refresh };
  const form = $("tune-form");
  put($("tune-title"), `Tune ${stream.name}`);
  put($("tune-note"), stream.schedule ? `It follows the schedule ${stream.schedule}; an interval takes its place.` : stream.interval === null ? "It follows a rate; an interval takes its place." : "In force from the next tick, until its declaration changes.");
  put($("tune-error"), "");
  form.elements.interval.value = stream.interval === null ? "" : dom.interval(stream.interval);
  form.elements.batchSize.value = stream.batchSize;
  form.elements.priority.value = stream.priority;
  form.elements.enabled.checked = stream.enabled;
  $("tune-dialog").showModal();
}

// Only what was changed is sent: the rest of the stream stays as it is declared.
function changes({ interval, batchSize, priority, enabled }) {
  const { stream } = tuned;
  const changed = {};
  const text = interval.value.trim();
  if (text && text !== (stream.interval === null ? "" : dom.interval(stream.interval))) {
    changed.interval = /^\d+$/.test(text) ? Number(text) : text;
  }
  if (batchSize.value !== String(stream.batchSize)) changed.batchSize = batchSize.value === "" ? null : Number(batchSize.value);
  if (priority.value !== stream.priority) changed.priority = priority.value;
  if (enabled.checked !== stream.enabled) changed.enabled = enabled.checked;
  return changed;
}

$("tune-form").addEventListener("submit", async (submit) => {
  submit.preventDefault();
  const { stream, refresh } = tuned;
  const changed = changes(submit.target.elements);
  try {
    if (Object.keys(changed).length) {
      await call("PATCH", path(stream.name), changed);
      dom.say(`${stream.name} is changed: ${Object.keys(changed).join(", ")}`);
      await refresh();
    }
    $("tune-dialog").close();
  } catch (error) {
    const errors = (error.errors || []).map((one) => (one.path ? `${one.path}: ${one.message}` : one.message));
    put($("tune-error"), errors.join("; ") || error.message);
  }
});
