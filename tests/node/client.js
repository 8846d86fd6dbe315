// The real client of Socket.IO at the end of two pipes: a command a line in, what happened a line out.
//
//   {"do": "open", "url": …, "options": {…}, "follow": [channels], "join": {options}}
//   {"do": "emit", "event": …, "arguments": […], "ack": 7}
//   {"do": "stall"}  {"do": "resume"}  {"do": "disconnect"}  {"do": "connect"}
//
// With "follow" it does what a dashboard does: it joins at every connect, behind what it has.
"use strict";

const readline = require("node:readline");
const { io } = require("socket.io-client");

let socket;
const positions = {};

function say(on, more) {
  process.stdout.write(JSON.stringify({ on, ...more }) + "\n");
}

function join(channels, options) {
  socket.emit("join-streaming", channels, { ...options, after: positions }, (data) => {
    for (const [name, { epoch, seq, recovered }] of Object.entries(data.streams)) {
      if (!recovered) positions[name] = { epoch, seq };
    }
    say("joined", { data });
  });
}

const commands = {
  open({ url, options, follow, join: asked }) {
    socket = io(url, { reconnectionDelay: 50, reconnectionDelayMax: 200, ...options });
    socket.io.on("open", () => {
      const engine = socket.io.engine;
      say("open", { transport: engine.transport.name });
      engine.on("upgrade", (transport) => say("upgrade", { transport: transport.name }));
      engine.on("close", (reason) => say("close", { reason }));
    });
    socket.on("connect", () => {
      say("connect", {});
      if (follow) join(follow, asked ?? {});
    });
    socket.on("connect_error", (error) => say("connect_error", { message: error.message }));
    socket.on("disconnect", (reason) => say("disconnect", { reason }));
    socket.onAny((event, data, ...rest) => {
      if (event === "streaming-update") positions[data.subject] = { epoch: data.epoch, seq: data.seq };
      say("event", { event, data, rest: rest.length });
    });
  },
  emit({ event, arguments: list, ack }) {
    if (ack === undefined) socket.emit(event, ...list);
    else socket.emit(event, ...list, (...answer) => say("ack", { ack, answer }));
  },
  stall() {
    socket.io.engine.transport.ws._socket.pause();
    say("stalled", {});
  },
  resume() {
    socket.io.engine?.transport?.ws?._socket?.resume();
  },
  disconnect() {
    socket.disconnect();
  },
  connect() {
    socket.connect();
  },
};

readline
  .createInterface({ input: process.stdin })
  .on("line", (line) => {
    const command = JSON.parse(line);
    commands[command.do](command);
  })
  .on("close", () => {
    // At once, what is still to be said would be lost
    socket?.disconnect();
    setTimeout(() => process.exit(0), 2000).unref();
  });
