// Scenarios, and the runs that are under way with their steps.

import * as dom from "./dom.js";

const { $, call, put } = dom;
const STEPS = 5;
const MEMORY = 50;
const ENDINGS = { completed: "Completed", cancelled: "Cancelled", failed: "Failed" };
const lines = new Map();
const steps = new Map();
let runs = [];

class Line {
  constructor(name, refresh) {
    this.about = dom.make("p", { className: "muted small clamp" });
    this.meta = dom.make("p", { className: "muted small" });
    this.runs = dom.make("ul", { className: "runs" });
    this.boxes = new Map();
    this.refresh = refresh;
    const start = dom.make("button", { type: "button" }, "Start");
    start.setAttribute("aria-label", `Start ${name}`);
    start.addEventListener("click", () => dom.attempt(start, async () => {
      await call("POST", `${dom.API}/simulate`, { scenario: name });
      await refresh();
    }));
    const head = dom.make("div", { className: "line" }, dom.make("h3", {}, name), start);
    this.element = dom.make("li", { data: { scenario: name } }, head, this.about, this.meta, this.runs);
  }

  show(scenario, mine) {
    put(this.about, scenario.description);
    put(this.meta, this.words(scenario, mine));
    const running = mine.filter((run) => run.state === "running");
    for (const id of [...this.boxes.keys()]) if (!running.some((run) => run.runId === id)) this.boxes.delete(id);
    dom.place(this.runs, running.map((run) => this.box(run)));
    this.runs.hidden = !running.length;
  }

  words(scenario, mine) {
    const last = mine.find((run) => run.state !== "running");
    const parts = [dom.count(scenario.steps, "step"), `${dom.count(scenario.streams.length, "stream")}`];
    if (last) parts.push(`${ENDINGS[last.state]} ${dom.clock(last.ended)}${last.error ? `: ${last.error}` : ""}`);
    return parts.join(" · ");
  }

  box(run) {
    if (!this.boxes.has(run.runId)) this.boxes.set(run.runId, new Box(run, this.refresh));
    return this.boxes.get(run.runId).show(run);
  }
}

class Box {
  constructor(run, refresh) {
    this.time = dom.make("span", { className: "elapsed" });
    this.now = dom.make("ul", { className: "now" });
    this.done = dom.make("ol", { className: "done" });
    const cancel = dom.make("button", { type: "button" }, "Cancel");
    cancel.setAttribute("aria-label", `Cancel ${run.scenario}`);
    cancel.addEventListener("click", () => dom.attempt(cancel, async () => {
      await call("DELETE", `${dom.API}/simulate/${encodeURIComponent(run.runId)}`);
      await refresh();
    }));
    const state = dom.make("span", { className: "lamp", data: { tone: "busy" } }, dom.make("i"), dom.make("span", {}, "running"));
    this.element = dom.make("li", { data: { run: run.runId } }, dom.make("div", { className: "line" }, state, this.time, cancel), this.now, this.done);
  }

  show(run) {
    this.run = run;
    list(this.now, run.current);
    const current = new Set(run.current);
    const taken = (steps.get(run.runId) || []).map((step) => `${step.path} ${step.text}`).filter((text) => !current.has(text));
    list(this.done, taken.slice(-STEPS).reverse());
    return this.element;
  }
}

function list(element, texts) {
  while (element.children.length > texts.length) element.lastChild.remove();
  while (element.children.length < texts.length) element.append(dom.make("li", {}, dom.make("span"), dom.make("code")));
  texts.forEach((text, at) => {
    const cut = text.indexOf(" ");
    put(element.children[at].firstChild, text.slice(cut + 1));
    // steps[6].parallel[0][1] is 7.1.2 to those who count from one
    put(element.children[at].lastChild, (text.slice(0, cut).match(/\d+/g) || []).map((one) => Number(one) + 1).join("."));
    element.children[at].title = text;
  });
}

// What channel `system` says of runs; it may say it again after a break.
export function hear(data) {
  if (data.kind !== "scenario-step") return;
  const mine = steps.get(data.runId) || [];
  const key = `${data.time} ${data.path}`;
  if (mine.some((one) => one.key === key)) return;
  mine.push({ key, path: data.path, text: data.text });
  steps.set(data.runId, mine.slice(-3 * STEPS));
  if (steps.size > MEMORY) steps.delete(steps.keys().next().value);
}

export function show(scenarios, found, refresh) {
  runs = found;
  for (const name of [...lines.keys()]) if (!scenarios.some((one) => one.name === name)) lines.delete(name);
  for (const { name } of scenarios) if (!lines.has(name)) lines.set(name, new Line(name, refresh));
  dom.place($("scenarios-list"), scenarios.map((one) => lines.get(one.name).element));
  for (const one of scenarios) lines.get(one.name).show(one, runs.filter((run) => run.scenario === one.name));
  $("scenarios-empty").hidden = scenarios.length > 0;
}

export function tick(now) {
  for (const line of lines.values()) {
    for (const box of line.boxes.values()) put(box.time, dom.span((now - Date.parse(box.run.started)) / 1000));
  }
}
