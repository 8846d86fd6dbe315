// What every part of the page uses. Values from the daemon only ever become text nodes.

import * as who from "./who.js";

export const API = "/api/streaming";
export const $ = (id) => document.getElementById(id);

export function make(tag, properties, ...children) {
  const { data, ...rest } = properties || {};
  const element = Object.assign(document.createElement(tag), rest);
  Object.assign(element.dataset, data);
  element.append(...children);
  return element;
}

// Only what differs is written: an unchanged text costs no layout, and a selection in it stays.
export function put(element, text) {
  const words = String(text);
  if (element.textContent !== words) element.textContent = words;
}

export function mark(element, key, value) {
  if (element.dataset[key] !== String(value)) element.dataset[key] = value;
}

export function lamp(element, tone, words, title = "") {
  mark(element, "tone", tone);
  put(element.lastElementChild, words);
  if (element.title !== title) element.title = title;
}

export function place(list, elements) {
  if (elements.length !== list.children.length || elements.some((one, at) => list.children[at] !== one)) {
    list.replaceChildren(...elements);
  }
}

export async function call(method, path, body) {
  const request = { method, headers: { ...who.headers(), ...(body ? { "content-type": "application/json" } : {}) } };
  if (body) request.body = JSON.stringify(body);
  const response = await fetch(path, request);
  const answer = await response.json();
  if (response.status === 401) who.ask(answer.detail);
  if (!response.ok) throw Object.assign(new Error(answer.detail || answer.title), answer);
  return answer;
}

// Numbers, in forms whose width does not change from one moment to the next. Not by Intl: what it loads at first use
// takes longer than the rest of the page together.
const two = (number) => String(number).padStart(2, "0");

export function fixed(number, digits) {
  const [left, right] = Math.abs(number).toFixed(digits).split(".");
  return `${number < 0 ? "−" : ""}${left.replace(/\B(?=(\d{3})+$)/g, ",")}${right ? `.${right}` : ""}`;
}

export const whole = (number) => fixed(number, 0);
export const rate = (number) => fixed(number, number < 10 ? 2 : number < 100 ? 1 : 0);

export function clock(time) {
  if (!time) return "–";
  const at = new Date(time);
  return `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
}

export function bytes(count) {
  return count < 1e9 ? `${fixed(count / 1e6, 1)} MB` : `${fixed(count / 1e9, 2)} GB`;
}

export function span(seconds) {
  const at = Math.max(0, Math.floor(seconds));
  const days = Math.floor(at / 86400);
  return `${days ? `${days} d ` : ""}${two(Math.floor(at / 3600) % 24)}:${two(Math.floor(at / 60) % 60)}:${two(at % 60)}`;
}

export function interval(milliseconds) {
  const unit = [["h", 3600000], ["m", 60000], ["s", 1000]].find(([, size]) => milliseconds % size === 0);
  return unit ? `${milliseconds / unit[1]}${unit[0]}` : `${milliseconds}ms`;
}

export function count(number, one, many = `${one}s`) {
  return `${whole(number)} ${number === 1 ? one : many}`;
}

// Drawing: what is asked for is done once a frame of the screen, and no longer than a few milliseconds of it. What
// may wait is done at the same beats of `every` milliseconds, so that the browser lays the page out once for all of it.
const BUDGET = 8;
const waiting = new Set();
let timer = 0;
let framed = false;

export function painter(work, every = 0) {
  const one = { work, every, last: -Infinity };
  return () => {
    if (waiting.has(one)) return;
    waiting.add(one);
    plan();
  };
}

// How long until the next beat of one.
function rest({ every, last }, now) {
  return every ? Math.max(0, (Math.floor(last / every) + 1) * every - now) : 0;
}

function plan() {
  if (framed || !waiting.size) return;
  clearTimeout(timer);
  const now = performance.now();
  const wait = Math.min(...[...waiting].map((one) => rest(one, now)));
  if (wait > 0) timer = setTimeout(plan, wait);
  else {
    framed = true;
    requestAnimationFrame(paint);
  }
}

function paint() {
  framed = false;
  const began = performance.now();
  for (const one of [...waiting].sort((left, right) => left.last - right.last)) {
    if (performance.now() - began > BUDGET) break;
    if (rest(one, began)) continue;
    waiting.delete(one);
    one.last = began;
    one.work();
  }
  plan();
}

// Work in slices, so that none holds up the page.
export async function slowly(items, work, most = 100) {
  for (let at = 0; at < items.length; at += most) {
    items.slice(at, at + most).forEach(work);
    await new Promise((done) => setTimeout(done));
  }
}

// What was done, or could not be: said once, kept a while, errors until they are closed.
export function say(words, tone = "good", undo = null) {
  const close = make("button", { type: "button" }, "Close");
  const toast = make("p", { className: "toast", data: { tone } }, make("span", {}, words));
  const end = () => toast.remove();
  if (undo) {
    const back = make("button", { type: "button" }, "Undo");
    back.addEventListener("click", () => { undo(); end(); });
    toast.append(back);
  }
  close.addEventListener("click", end);
  toast.append(close);
  $("toasts").append(toast);
  while ($("toasts").children.length > 3) $("toasts").firstChild.remove();
  if (tone !== "bad") setTimeout(end, undo ? 12000 : 6000);
}

export async function attempt(button, work) {
  if (button.getAttribute("aria-disabled") === "true") return;
  // Not `disabled`: that would take the focus away from who works with keys
  button.setAttribute("aria-disabled", "true");
  try {
    await work();
  } catch (error) {
    const errors = (error.errors || []).map((one) => one.message).join("; ");
    say(errors || error.message || "The daemon does not answer", "bad");
  } finally {
    button.removeAttribute("aria-disabled");
  }
}

// What this browser remembers; without the right to, it forgets.
export function recall(key, otherwise) {
  try {
    return JSON.parse(localStorage.getItem(`regstream.${key}`)) ?? otherwise;
  } catch {
    return otherwise;
  }
}

export function remember(key, value) {
  try {
    localStorage.setItem(`regstream.${key}`, JSON.stringify(value));
  } catch {
    // A private window or a full store: what was seen is seen until the page is closed
  }
}
