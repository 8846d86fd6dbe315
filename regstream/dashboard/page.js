// The live page: the link brings events, the API says how things stand, and each part of the page draws its own.

import * as dom from "./dom.js";
import * as alerts from "./alerts.js";
import * as feed from "./feed.js";
import * as files from "./files.js";
import * as keys from "./keys.js";
import * as runs from "./runs.js";
import * as tiles from "./tiles.js";
import * as who from "./who.js";
import { Link } from "./link.js";

const { $, call, put } = dom;
const POLL = 2000;
const HISTORY = 1000;
const BROKER = {
  connecting: ["wait", "Connecting to Kafka"], live: ["good", "Kafka"], draining: ["busy", "Kafka, catching up"],
  fallback: ["bad", "Fallback"], new: ["wait", "Broker starts"], closed: ["bad", "Broker closed"],
};
let status = null;
let streaming = false;
let lostAt = 0;
let spent = null;
let base = {};

// Banners: what needs attention, above everything, each once. What counts on in one is not read out each time.
const banners = new Map();

function banner(key, tone, words, label = "", work = null, counting = "") {
  if (!words) {
    banners.get(key)?.element.remove();
    banners.delete(key);
    return;
  }
  if (!banners.has(key)) banners.set(key, raise(key, tone, label, work));
  const { element, text, tail } = banners.get(key);
  dom.mark(element, "tone", tone);
  put(text, words);
  put(tail, counting);
}

function raise(key, tone, label, work) {
  const text = dom.make("span");
  const tail = dom.make("span");
  tail.setAttribute("aria-live", "off");
  const element = dom.make("p", { className: "banner", data: { tone, about: key } }, text, tail);
  if (label) {
    const button = dom.make("button", { type: "button" }, label);
    button.addEventListener("click", () => dom.attempt(button, async () => work()));
    element.append(button);
  }
  $("banners").append(element);
  return { element, text, tail };
}

// How things stand, as the API says.
function drawBroker(kafka) {
  const simulated = kafka.simulationMode && kafka.state === "live";
  const [tone, words] = simulated ? ["idle", "Simulation"] : BROKER[kafka.state] || ["wait", kafka.state];
  dom.lamp($("broker"), tone, words, kafka.reason);
  const away = kafka.state === "fallback" || kafka.state === "connecting" || kafka.state === "draining";
  const waits = kafka.waiting ? `${dom.count(kafka.waiting, "event")} on disk ${kafka.waiting === 1 ? "waits" : "wait"} for it.` : "";
  const said = {
    fallback: `Kafka is away: ${kafka.reason || "it does not answer"}. Streams go on in simulation.`,
    connecting: "Connecting to Kafka.", draining: "Kafka is back, what waited goes first.",
  };
  banner("broker", kafka.state === "fallback" ? "bad" : "wait", away ? said[kafka.state] : "", "", null, waits);
}

function drawStreaming(data) {
  streaming = data.isStreaming;
  dom.lamp($("streaming"), streaming ? "good" : "idle", streaming ? "Streaming" : "Stopped");
  $("all").disabled = false;
  put($("all"), streaming ? "Stop all" : "Start all");
  $("all").classList.toggle("main", !streaming);
  banner("streaming", "idle", streaming ? "" : "Streaming is stopped: nothing new is made.", "Start", () => toggle(true));
}

async function toggle(on = !streaming) {
  draw(await call("POST", `${dom.API}/${on ? "start" : "stop"}`, {}));
}

function drawFailing(streams) {
  const failing = streams.filter((one) => one.state === "failing").map((one) => one.name);
  const names = failing.slice(0, 3).join(", ") + (failing.length > 3 ? ` and ${failing.length - 3} more` : "");
  banner("failing", "bad", failing.length ? `Cannot make events: ${names}. The tile says why.` : "");
}

function drawStats() {
  const { dataStreamer, streams, subscribers } = status;
  put($("stat-rate"), dom.rate(streams.reduce((sum, one) => sum + one.actualRate, 0)));
  put($("stat-total"), dom.whole(dataStreamer.totalMessagesSent));
  put($("stat-streams"), `${dom.whole(dataStreamer.isStreaming ? dataStreamer.activeStreams : 0)} of ${dom.whole(streams.length)}`);
  put($("stat-subscribers"), dom.whole(subscribers));
}

function draw(found) {
  status = found;
  drawBroker(found.kafka);
  drawStreaming(found.dataStreamer);
  drawFailing(found.streams);
  drawStats();
  tiles.show(found.streams, found.dataStreamer.isStreaming, refresh);
  feed.names(["ALERTS", ...found.streams.map((one) => one.name)]);
  files.show(found.config);
  const problems = found.config.error ? dom.count(found.config.problems.length, "problem") : "";
  banner("files", "bad", problems && `The files on disk were refused: ${problems}.`, "Show", () => keys.go("files"));
}

function drawHealth(health) {
  const { system, kafka, store, config } = health;
  dom.lamp($("health-state"), health.status === "ok" ? "good" : "wait", health.status);
  put($("stat-memory"), dom.bytes(system.memory));
  put($("stat-uptime"), dom.span(system.uptime));
  put($("stat-cpu"), `${dom.fixed(recent(system), 1)} %`);
  const dropped = Object.values(kafka.dropped).reduce((sum, one) => sum + one, 0);
  const facts = {
    Broker: `${kafka.simulationMode ? "simulated" : "Kafka"}, ${kafka.state}`, "Waiting on disk": dom.whole(kafka.waiting),
    "Not consumed yet": dom.whole(kafka.lag), "Given up": dom.whole(dropped), "CPU since the start": `${dom.fixed(system.cpu, 1)} %`,
    "CPU seconds": dom.fixed(system.cpuSeconds, 1), Store: store.state === "none" ? "in memory only" : `PostgreSQL, ${store.state}`, ...(store.waiting ? { "Waiting for it": dom.whole(store.waiting) } : {}),
    Files: config.error ? "refused" : "in force", Process: String(system.pid), Python: system.python, Version: system.version,
  };
  const list = $("health-list");
  for (const [at, [term, text]] of Object.entries(facts).entries()) {
    if (!list.children[at]) list.append(dom.make("div", {}, dom.make("dt"), dom.make("dd")));
    put(list.children[at].firstChild, term);
    put(list.children[at].lastChild, text);
  }
}

// Percent of a core between two looks; a daemon that has begun anew counts anew.
function recent(system) {
  const before = spent && spent.pid === system.pid && system.uptime > spent.uptime ? spent : { cpuSeconds: 0, uptime: 0 };
  spent = system;
  return (100 * (system.cpuSeconds - before.cpuSeconds)) / Math.max(0.001, system.uptime - before.uptime);
}

async function refresh() {
  const [found, simulations] = await Promise.all([call("GET", `${dom.API}/status`), call("GET", `${dom.API}/simulate`)]);
  draw(found);
  runs.show(found.scenarios, simulations.runs, refresh);
  runs.tick(Date.now() + link.skew);
}

// What channel `system` says changes how things stand; it may say much at once.
const look = dom.painter(() => refresh().catch(() => {}), 300);

async function poll() {
  try {
    if (!document.hidden && !who.isLocked()) {
      await refresh();
      drawHealth(await call("GET", "/health"));
    }
    banner("api", "bad", "");
  } catch {
    if (!lostAt && !who.isLocked()) banner("api", "bad", "The daemon does not answer questions; what it sends still arrives.");
  }
  setTimeout(poll, POLL);
}

// The link.
let retryAt = 0;
const hears = {
  welcome(data) {
    put($("where"), `${data.server} · ${data.region}`);
    who.known(data.role);
    banner("locked", "bad", "");
  },
  state(name, { wait, reason, took }) {
    if (name === "pong") return live(took);
    document.body.dataset.link = name === "again" ? "lost" : name;
    if (name === "live") {
      lostAt = 0;
      banner("lost", "bad", "");
      return live();
    }
    if (name === "connecting") return dom.lamp($("link"), "wait", "Connecting");
    if (name === "again") return lost("Trying again.");
    lostAt ||= Date.now();
    retryAt = Date.now() + wait;
    this.reason = reason || "";
    banner("api", "bad", "");
    return lost();
  },
  unauthorized(reason) {
    dom.lamp($("link"), "bad", "Locked");
    banner("locked", "bad", "This daemon shows itself to bearers of a token only.", "Enter token", () => who.ask());
    who.ask(reason);
  },
  event: take,
  replayed: feed.take,
  answered,
  system(data) {
    runs.hear(data);
    look();
  },
  lagging({ dropped, total }) {
    feed.lagging(total);
    if (dropped.ALERTS) alertsSince().catch(() => {});
    for (const [stream, number] of Object.entries(dropped)) feed.gap(stream, new Date(Date.now() + link.skew).toISOString(), `${dom.count(number, "event")} skipped: this page was too slow`);
  },
};

// With the time to the daemon and back, once it is known.
function live(took = hears.took) {
  hears.took = took;
  const words = took === undefined ? "Live" : `Live, ${String(Math.round(took)).padStart(2, "\u2007")} ms`;
  dom.lamp($("link"), "good", words, "The time to the daemon and back");
}

function lost(words = "") {
  const seconds = Math.max(0, Math.ceil((retryAt - Date.now()) / 1000));
  dom.lamp($("link"), "bad", "Lost");
  const why = hears.reason ? ` (${hears.reason})` : "";
  const next = words || `Next try in ${seconds} s.`;
  banner("lost", "bad", `No connection since ${dom.clock(lostAt)}${why}. What you see is from then.`, "Try now", () => link.now(), next);
}

function take(event, past) {
  tiles.take(event, past);
  if (event.type === "immediate-alert") alerts.take(event);
  if (!past) feed.take(event);
}

function answered(streams, before, first) {
  if (first) {
    base = streams;
    history().catch(() => {});
    return;
  }
  const missed = Object.entries(streams).filter(([name]) => before[name]);
  const back = missed.filter(([, one]) => one.recovered).reduce((sum, [, one]) => sum + one.replayed, 0);
  const gone = missed.filter(([, one]) => !one.recovered);
  for (const [name, one] of gone) {
    const anew = one.epoch !== before[name].epoch;
    feed.gap(name, new Date(Date.now() + link.skew).toISOString(), anew ? "Numbering begins anew: what came after the break cannot be had" : `From #${before[name].seq + 1} to #${one.seq} cannot be had`);
  }
  if (gone.length) dom.say(`Connected again. ${dom.count(gone.length, "stream")} could not be continued.`, "wait");
  else dom.say(`Connected again, nothing was missed: ${dom.count(back, "event")} came late.`);
  if (gone.length) alertsSince().catch(() => {});
}

// What was there before this page: the charts and the list begin with it.
async function history() {
  const older = (event) => base[event.subject]?.epoch === event.epoch && event.seq <= base[event.subject].seq;
  const { events } = await call("GET", `${dom.API}/events?limit=${HISTORY}`);
  const found = events.filter(older);
  feed.before(found);
  await dom.slowly(found, tiles.before);
  await alertsSince();
}

async function alertsSince() {
  const { events } = await call("GET", `${dom.API}/events?stream=ALERTS&limit=${HISTORY}`);
  await dom.slowly(events, alerts.take);
}

const link = new Link(hears);
let second = 0;

function tick() {
  const now = Date.now() + link.skew;
  if (Math.floor(now / 1000) !== second) {
    second = Math.floor(now / 1000);
    paintSecond();
  }
  if (lostAt && retryAt > Date.now()) lost();
  setTimeout(tick, 250);
}

const paintSecond = dom.painter(() => {
  const now = Date.now() + link.skew;
  tiles.tick(now);
  runs.tick(now);
});

$("all").addEventListener("click", () => dom.attempt($("all"), () => toggle()));
files.listen(refresh);
who.listen(() => { link.connect(); refresh().catch(() => {}); });
keys.listen();
link.connect();
poll();
tick();
