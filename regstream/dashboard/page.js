"use strict";
// Values from the daemon only ever become text nodes: nothing here may use innerHTML.

const FEED_LENGTH = 100;
const $ = (id) => document.getElementById(id);
const API = "/api/streaming";

function make(tag, properties, ...children) {
  const { data, ...rest } = properties || {};
  const element = Object.assign(document.createElement(tag), rest);
  Object.assign(element.dataset, data);
  element.append(...children);
  return element;
}

function clock(text) {
  return text ? new Date(text).toLocaleTimeString() : "none yet";
}

async function call(method, path, body) {
  const request = { method, headers: body ? { "content-type": "application/json" } : {} };
  if (body) request.body = JSON.stringify(body);
  const response = await fetch(API + path, request);
  const answer = await response.json();
  if (!response.ok) throw Object.assign(new Error(answer.detail), answer);
  return answer;
}

function show(kind, text, list) {
  const items = (list || []).map((one) => make("li", { className: "mono" }, one));
  $("report").replaceChildren(make("p", { className: kind }, text), make("ul", {}, ...items));
}

function action(label, name, work) {
  const button = make("button", { type: "button" }, label);
  button.setAttribute("aria-label", `${label} ${name}`);
  button.addEventListener("click", async () => {
    button.disabled = true;
    try {
      await work();
      await refresh();
    } catch (error) {
      show("bad", error.message);
    }
    button.disabled = false;
  });
  return button;
}

// Rows are kept and only their texts change, so that the focus stays where it is.
const rows = new Map();

function row(stream) {
  const cells = {
    state: make("span", { className: "badge" }), rate: make("td", { className: "number" }),
    seq: make("td", { className: "number" }), missed: make("td", { className: "number" }), last: make("td"),
  };
  const path = `/streams/${encodeURIComponent(stream.name)}`;
  const pause = action("Pause", stream.name, () => call("POST", `${path}/pause`));
  const resume = action("Resume", stream.name, () => call("POST", `${path}/resume`));
  const head = make("th", { scope: "row", title: stream.description }, stream.name);
  cells.element = make("tr", {}, head, make("td", {}, cells.state), cells.rate, cells.seq, cells.missed, cells.last,
    make("td", {}, pause, resume));
  return Object.assign(cells, { pause, resume });
}

function drawStream(stream) {
  if (!rows.has(stream.name)) rows.set(stream.name, row(stream));
  const cells = rows.get(stream.name);
  cells.state.dataset.state = cells.state.textContent = stream.state;
  cells.state.title = stream.error || "";
  cells.rate.textContent = stream.actualRate.toFixed(2);
  cells.seq.textContent = stream.seq;
  cells.missed.textContent = stream.missed;
  cells.last.textContent = clock(stream.last);
  cells.pause.hidden = stream.paused;
  cells.resume.hidden = !stream.paused;
  return cells.element;
}

const scenarioRows = new Map();

function drawScenario(scenario) {
  const key = JSON.stringify(scenario);
  const known = scenarioRows.get(scenario.name);
  if (known && known.key === key) return known.element;
  const words = scenario.running.length ? `running ${scenario.running.length}` : scenario.description;
  const buttons = [action("Start", scenario.name, () => call("POST", "/simulate", { scenario: scenario.name }))];
  if (scenario.running.length) {
    buttons.push(action("Cancel", scenario.name, () => Promise.all(
      scenario.running.map((run) => call("DELETE", `/simulate/${encodeURIComponent(run)}`)))));
  }
  const text = make("div", {}, scenario.name, make("small", {}, words));
  scenarioRows.set(scenario.name, { key, element: make("li", {}, text, ...buttons) });
  return scenarioRows.get(scenario.name).element;
}

function place(list, elements) {
  if (elements.length !== list.children.length || elements.some((one, at) => list.children[at] !== one)) {
    list.replaceChildren(...elements);
  }
}

function draw(status) {
  place($("streams"), status.streams.map(drawStream));
  place($("scenarios"), status.scenarios.map(drawScenario));
  const mode = status.kafka.simulationMode ? "simulated broker" : "Kafka";
  const going = status.dataStreamer.isStreaming ? "streaming" : "stopped";
  $("summary").textContent =
    `${going}, ${mode}, ${status.dataStreamer.totalMessagesSent} events, subscribers: ${status.subscribers}`;
  const { generation, loadedAt, error } = status.config;
  $("generation").textContent = `Generation ${generation}, loaded ${clock(loadedAt)}${error ? `. Refused: ${error}` : ""}`;
}

async function refresh() {
  draw(await call("GET", "/status"));
}

async function poll() {
  try {
    if (!document.hidden) await refresh();
  } catch {
    $("summary").textContent = "the daemon does not answer";
  }
  setTimeout(poll, 2000);
}

async function reload(dryRun) {
  try {
    const result = await call("POST", `/reload?dryRun=${dryRun}`);
    const parts = ["added", "changed", "removed"].filter((key) => result[key].length);
    const list = parts.map((key) => `${key}: ${result[key].join(", ")}`);
    const start = dryRun ? "The files are good" : `Generation ${result.generation} is in force`;
    show("good", `${start}, ${list.length ? "streams:" : "no stream differs"}`, list);
    await refresh();
  } catch (error) {
    const lines = (error.problems || []).map((one) =>
      `${one.file}:${one.line}:${one.column}: ${one.message}${one.hint ? ` (${one.hint})` : ""}`);
    show("bad", error.message, lines);
  }
}

// The feed: what arrives between two frames of the screen is drawn at once.
let waiting = [];
let held = false;

function item(event) {
  const alert = event.type === "immediate-alert";
  const text = alert ? `${event.data.severity}: ${event.data.message}` : JSON.stringify(event.data);
  return make("li", { className: alert ? "alert" : "" }, make("time", { dateTime: event.time }, clock(event.time)),
    make("strong", {}, event.type), ` #${event.seq}`, make("span", { className: "mono" }, text));
}

function drawFeed() {
  const fresh = waiting.slice(-FEED_LENGTH);
  waiting = [];
  if (held || !fresh.length) return;
  const feed = $("feed");
  feed.prepend(...fresh.reverse().map(item));
  while (feed.children.length > FEED_LENGTH) feed.lastChild.remove();
  $("feed-empty").hidden = true;
}

function arrived(event) {
  positions[event.subject] = { epoch: event.epoch, seq: event.seq };
  const cells = rows.get(event.subject);
  if (cells) {
    cells.seq.textContent = event.seq;
    cells.last.textContent = clock(event.time);
  }
  if (!waiting.length) requestAnimationFrame(drawFeed);
  waiting.push(event);
}

// The link: after a break it asks for what it missed.
const positions = {};
let delay = 500;

function link(state, text) {
  $("link").dataset.state = state;
  $("link").textContent = text;
}

function subscribe(socket) {
  const resumed = Object.keys(positions).length ? { after: positions } : { rewind: 20 };
  socket.send(JSON.stringify({ action: "subscribe", channels: ["dashboard-updates", "system"], ...resumed }));
}

function connect() {
  const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws`);
  socket.addEventListener("open", () => subscribe(socket));
  socket.addEventListener("message", (message) => {
    const { event, data } = JSON.parse(message.data);
    if (event === "subscribed") {
      delay = 500;
      link("live", "live");
    } else if (event === "error" && Object.keys(positions).length) {
      // A stream that was removed meanwhile cannot be resumed: begin anew.
      for (const name of Object.keys(positions)) delete positions[name];
      subscribe(socket);
    } else if (event === "system") {
      refresh().catch(() => {});
    } else if (data && data.specversion) {
      arrived(data);
    }
  });
  socket.addEventListener("close", () => {
    link("lost", "connection lost, trying again");
    setTimeout(connect, delay);
    delay = Math.min(delay * 2, 10000);
  });
}

$("hold").addEventListener("click", () => {
  held = !held;
  $("hold").setAttribute("aria-pressed", String(held));
});
$("check").addEventListener("click", () => reload(true));
$("reload").addEventListener("click", () => reload(false));
poll();
connect();
