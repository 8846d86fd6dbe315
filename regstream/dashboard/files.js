// The configuration: which one is in force, and the problems of one that is not, each at file:line:column.

import * as dom from "./dom.js";

const { $, call, put, make } = dom;
const SHOWN = 200;
let shown = "";

function problem(one) {
  const where = make("code", {}, `${one.file}:${one.line}:${one.column}`);
  const children = [where, make("p", {}, one.message)];
  if (one.hint) children.push(make("p", { className: "hint" }, one.hint));
  return make("li", {}, ...children);
}

function report(tone, title, children) {
  const box = make("div", { className: "report", data: { tone } }, make("p", { className: "title" }, title), ...children);
  $("files-report").replaceChildren(box);
}

function problems(title, found) {
  const lines = found.slice(0, SHOWN).map(problem);
  if (found.length > SHOWN) lines.push(make("li", { className: "muted" }, `and ${dom.whole(found.length - SHOWN)} more`));
  report("bad", title, [make("ol", { className: "problems" }, ...lines)]);
}

function difference(result) {
  const parts = [["streams", result], ["scenarios", result.scenarios], ["entities", result.entities]];
  return parts.flatMap(([what, one]) => ["added", "changed", "removed"].filter((key) => one[key].length)
    .map((key) => make("li", {}, make("strong", {}, `${what} ${key}`), ` ${one[key].join(", ")}`)));
}

async function reload(dryRun) {
  try {
    const result = await call("POST", `${dom.API}/reload?dryRun=${dryRun}`);
    const lines = difference(result);
    const title = dryRun ? "The files are good" : `Generation ${result.generation} is in force`;
    const what = lines.length ? [make("ul", {}, ...lines)] : [make("p", { className: "muted" }, "Nothing differs from what is in force.")];
    report("good", title, what);
  } catch (error) {
    if (!error.problems) throw error;
    const start = dryRun ? "The files have" : "Refused, nothing was changed:";
    problems(`${start} ${dom.count(error.problems.length, "problem")}`, error.problems);
  }
}

// What is in force, as the API says. A refusal that nobody asked for, as of a saved file, is shown too.
export function show({ generation, loadedAt, error, problems: found }) {
  put($("files-state"), `Generation ${generation}, loaded ${dom.clock(loadedAt)}`);
  const key = error ? JSON.stringify(found) : "";
  if (key !== shown && key) problems(`The files were refused, what was in force stays: ${dom.count(found.length, "problem")}`, found);
  else if (key !== shown) report("good", `Generation ${generation} is in force`, [make("p", { className: "muted" }, "The problems are mended.")]);
  shown = key;
}

export function listen(refresh) {
  for (const [id, dryRun] of [["files-check", true], ["files-reload", false]]) {
    $(id).addEventListener("click", () => dom.attempt($(id), async () => {
      await reload(dryRun);
      await refresh();
    }));
  }
}
