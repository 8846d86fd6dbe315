"use strict";
// Draws /openapi.json; every text becomes a text node.

const main = document.getElementById("main");

function make(tag, properties, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

function typeOf(schema) {
  if (!schema) return "anything";
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.anyOf) return schema.anyOf.map(typeOf).join(" or ");
  if (schema.enum) return schema.enum.map((one) => JSON.stringify(one)).join(" or ");
  if ("const" in schema) return JSON.stringify(schema.const);
  if (schema.type === "array") return `list of ${typeOf(schema.items)}`;
  return [schema.type || "anything", schema.format].filter(Boolean).join(", ");
}

function limits(schema) {
  const words = { minimum: "at least", maximum: "at most", default: "default", pattern: "matching" };
  return Object.keys(words).filter((key) => schema && key in schema && schema[key] !== null)
    .map((key) => `${words[key]} ${schema[key]}`).join(", ");
}

function table(heads, lines) {
  const head = make("tr", {}, ...heads.map((text) => make("th", { scope: "col" }, text)));
  const body = lines.map((cells) => make("tr", {}, ...cells.map((cell) => make("td", {}, cell))));
  return make("div", { className: "scroll", tabIndex: 0 },
    make("table", {}, make("thead", {}, head), make("tbody", {}, ...body)));
}

function link(schema) {
  const name = typeOf(schema);
  const reference = schema && (schema.$ref || (schema.items && schema.items.$ref));
  return reference ? make("a", { href: `#schema-${reference.split("/").pop()}` }, name) : name;
}

function content(part) {
  return Object.entries((part && part.content) || {}).map(([media, one]) => [media, one.schema]);
}

function operation(method, path, one) {
  const details = make("details", { id: one.operationId },
    make("summary", {}, make("span", { className: "method" }, method.toUpperCase()), make("code", {}, path), ` ${one.summary}`));
  if (one.parameters) {
    details.append(table(["Parameter", "In", "Type", "Meaning"], one.parameters.map((parameter) => [
      make("code", {}, parameter.name), parameter.in,
      [typeOf(parameter.schema), limits(parameter.schema)].filter(Boolean).join(", "), parameter.description])));
  }
  for (const [media, schema] of content(one.requestBody)) details.append(make("p", {}, `Body (${media}): `, link(schema)));
  const answers = Object.entries(one.responses).flatMap(([status, answer]) => {
    const parts = content(answer);
    return (parts.length ? parts : [["", null]]).map(([media, schema]) =>
      [make("code", {}, status), answer.description, media, link(schema)]);
  });
  details.append(table(["Status", "When", "Media type", "Shape"], answers));
  return details;
}

function shape(name, schema) {
  const needed = new Set(schema.required || []);
  const lines = Object.entries(schema.properties || {}).map(([key, value]) => [
    make("code", {}, key), link(value), needed.has(key) ? "always" : "optional",
    [value.description, limits(value)].filter(Boolean).join("; ")]);
  const details = make("details", { id: `schema-${name}` }, make("summary", {}, make("code", {}, name)),
    make("p", { className: "muted" }, schema.description || typeOf(schema)));
  if (lines.length) details.append(table(["Key", "Type", "There", "Meaning"], lines));
  return details;
}

function section(title, ...children) {
  return make("section", {}, make("h2", {}, title), ...children);
}

function open() {
  const target = document.getElementById(location.hash.slice(1));
  if (target && target.tagName === "DETAILS") target.open = true;
  if (target) target.scrollIntoView();
}

async function draw() {
  const whole = await (await fetch("/openapi.json")).json();
  document.getElementById("version").textContent = `${whole.info.version}, OpenAPI ${whole.openapi}`;
  const groups = new Map(whole.tags.map((tag) => [tag.name, []]));
  for (const [path, methods] of Object.entries(whole.paths)) {
    for (const [method, one] of Object.entries(methods)) groups.get(one.tags[0]).push(operation(method, path, one));
  }
  main.replaceChildren(make("p", { className: "muted" }, whole.info.description));
  for (const [name, parts] of groups) main.append(section(name, ...parts));
  main.append(section("problems", ...whole["x-problems"].map((one) => make("p", { id: `problem-${one.slug}` },
    make("code", {}, `${one.status} ${one.slug}`), ` ${one.title}. ${one.description}`))));
  main.append(section("shapes", ...Object.entries(whole.components.schemas).map(([name, one]) => shape(name, one))));
  open();
}

addEventListener("hashchange", open);
draw().catch((error) => { document.getElementById("state").textContent = `openapi.json cannot be read: ${error.message}`; });
