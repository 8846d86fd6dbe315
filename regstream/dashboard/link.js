// The link to the daemon: it comes back by itself, asks for what it missed, and says what could not be had.

import * as who from "./who.js";

const UNAUTHORIZED = 4001;
const SHORTEST = 500;
const LONGEST = 10000;
const PING = 10000;
const CHANNELS = ["dashboard-updates"];

export class Link {
  // `hears` has: state(name, about), event(event, past), system(data), answered(streams, first), lagging(data),
  // welcome(data), unauthorized(reason)
  constructor(hears) {
    this.hears = hears;
    this.positions = {};
    this.known = {};
    this.skew = 0;
    this.delay = SHORTEST;
    this.first = true;
    addEventListener("online", () => this.now());
    document.addEventListener("visibilitychange", () => document.hidden || this.now());
  }

  connect() {
    clearTimeout(this.retry);
    this.retry = null;
    this.hears.state(this.first ? "connecting" : "again", {});
    const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws`, who.protocols());
    this.socket = socket;
    socket.addEventListener("open", () => this.open(socket));
    socket.addEventListener("message", (message) => this.take(socket, JSON.parse(message.data)));
    socket.addEventListener("close", (end) => socket === this.socket && this.lost(end));
  }

  // Try again at once, if it waits to do so.
  now() {
    if (this.retry) this.connect();
  }

  open(socket) {
    this.send(socket, { action: "subscribe", channels: ["system"], rewind: 100 });
    this.subscribe(socket);
    this.ping(socket);
    this.pinging = setInterval(() => this.ping(socket), PING);
  }

  subscribe(socket) {
    // Rather with gaps that are told than cut off: who falls behind would only have more to catch up with
    const ways = { snapshot: true, policy: "dropOldest" };
    this.send(socket, { action: "subscribe", channels: CHANNELS, after: this.positions, ...ways });
  }

  send(socket, message) {
    if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(message));
  }

  ping(socket) {
    // A connection that died without a word, as in a laptop that slept, says nothing: so it is asked
    if (this.asked) return this.give(socket, "it does not answer");
    this.asked = performance.now();
    return this.send(socket, { action: "ping" });
  }

  give(socket, reason) {
    if (socket !== this.socket) return;
    socket.close();
    this.lost({ reason, code: 0 });
  }

  take(socket, { event, data }) {
    if (socket !== this.socket) return;
    if (data && data.specversion) this.event(data);
    else if (event === "subscribed") this.subscribed(data);
    else if (event === "pong") this.pong(data);
    else if (event === "system") this.hears.system(data);
    else if (event === "lagging") this.hears.lagging(data);
    else if (event === "welcome") this.hears.welcome(data);
    else if (event === "error") this.refused(socket);
  }

  event(event) {
    // Stored and sent again: it says nothing of where its stream is
    if (event.replay) return this.hears.replayed(event);
    const start = this.known[event.subject];
    // Up to the number in the answer it is a snapshot: the newest of each key, with gaps, and not what was missed
    const past = Boolean(start) && !start.recovered && event.epoch === start.epoch && event.seq <= start.seq;
    if (!past) this.positions[event.subject] = { epoch: event.epoch, seq: event.seq };
    this.hears.event(event, past);
  }

  subscribed(data) {
    if (!data.channels.includes(CHANNELS[0])) return;
    const before = this.positions;
    this.known = data.streams;
    this.positions = {};
    for (const [name, { epoch, seq, recovered }] of Object.entries(data.streams)) {
      // What was recovered moves on with each event that comes; should this connection break in the middle, too
      this.positions[name] = recovered ? before[name] : { epoch, seq };
    }
    this.delay = SHORTEST;
    this.hears.answered(data.streams, before, this.first);
    this.first = false;
    this.hears.state("live", {});
  }

  pong(data) {
    const took = performance.now() - this.asked;
    this.asked = 0;
    this.skew = Date.parse(data.time) + took / 2 - Date.now();
    this.hears.state("pong", { took });
  }

  // Positions that the daemon cannot make sense of: begin anew.
  refused(socket) {
    if (!Object.keys(this.positions).length) return;
    this.positions = {};
    this.subscribe(socket);
  }

  lost(end) {
    clearInterval(this.pinging);
    this.asked = 0;
    this.socket = null;
    if (end.code === UNAUTHORIZED) return this.hears.unauthorized(end.reason);
    const wait = Math.round(this.delay * (0.75 + Math.random() / 2));
    this.delay = Math.min(this.delay * 2, LONGEST);
    this.hears.state("lost", { wait, reason: end.code === 1001 ? "the daemon is stopping" : end.reason });
    this.retry = setTimeout(() => this.connect(), wait);
  }
}
