"use strict";

// All text reaches the page through textContent, never as HTML.

const data = JSON.parse(document.getElementById("data").textContent);
const parameters = new URLSearchParams(location.search);
const languages = Object.keys(data.messages);
let language = languages.includes(parameters.get("lang")) ? parameters.get("lang") : data.language;
let shown = null;  // the last result, which is shown again when the language changes
let latest = 0;  // the number of the last request; answers to earlier ones are dropped

const SHOWN_LABELS = 10;
const ANSWERS = 3;
const SPECIAL = /^(\[[A-Z]+\]|<\/?[a-z]+>)$/;

function byId(id) {
  return document.getElementById(id);
}

function message(key, values = {}) {
  return data.messages[language][key].replace(/\{(\w+)\}/g, (all, name) => values[name]);
}

function element(name, className, ...children) {
  const node = document.createElement(name);
  if (className) node.className = className;
  node.append(...children);
  return node;
}

// --- the form ---------------------------------------------------------------------------------

function makeFields() {
  for (const name of data.fields) {
    const label = element("label");
    label.htmlFor = `field-${name}`;
    label.dataset.message = name;
    const area = element("textarea");
    area.id = `field-${name}`;
    area.name = name;
    area.rows = { question: 2, prefix: 1, choices: 4, context: 7 }[name] || 4;
    area.maxLength = data.characters;
    area.spellcheck = false;
    byId("fields").append(element("div", "field", label, area));
  }
}

function fill(values) {
  for (const name of data.fields) byId(`field-${name}`).value = values[name] || "";
}

function isExample() {
  return languages.some((other) =>
    data.fields.every((name) => byId(`field-${name}`).value === (data.examples[other][name] || "")));
}

function readInput() {
  const values = {};
  for (const name of data.fields) values[name] = byId(`field-${name}`).value;
  if (data.fields.length === 1) return values[data.fields[0]];
  if ("choices" in values) values.choices = values.choices.split("\n").filter((line) => line.trim());
  return values;
}

function setLanguage(chosen) {
  const example = isExample();
  language = chosen;
  document.documentElement.lang = chosen;
  byId("model").textContent = data.model;
  byId("task").textContent = message(data.task in data.messages[language] ? data.task : "try");
  byId("languages").setAttribute("aria-label", message("language"));
  for (const node of document.querySelectorAll("[data-message]")) {
    node.textContent = message(node.dataset.message);
  }
  for (const button of byId("languages").children) {
    button.setAttribute("aria-pressed", String(button.lang === chosen));
  }
  if (shown) show(shown);
  else if (example) fill(data.examples[language]);
}

// --- requests ---------------------------------------------------------------------------------

async function post(path, body) {
  let response;
  try {
    response = await fetch(path, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
  } catch (error) {
    throw new Error(message("failed"));
  }
  const answer = await response.json().catch(() => null);
  if (!answer) throw new Error(message("failed"));  // of a proxy
  if (!response.ok) throw new Error(answer.error.message);
  return answer;
}

async function run() {
  const number = ++latest;
  const input = readInput();
  const body = data.topK ? { inputs: [input], top_k: ANSWERS } : { inputs: [input] };
  const start = performance.now();
  byId("output").hidden = false;
  byId("output").setAttribute("aria-busy", "true");
  byId("time").textContent = message("running");
  const state = { input, prediction: null, tokens: null, error: null, ms: 0 };
  try {
    state.prediction = (await post("v1/predict", body)).predictions[0];
    state.ms = Math.round(performance.now() - start);
    if (byId("with-tokens").checked) state.tokens = await post("v1/tokens", { input });
  } catch (error) {
    state.error = error.message;
  }
  if (number !== latest) return;
  byId("output").setAttribute("aria-busy", "false");
  shown = state;
  show(state);
}

// --- results ----------------------------------------------------------------------------------

function show(state) {
  byId("output").hidden = false;
  byId("time").textContent = state.prediction ? message("took", { ms: state.ms }) : "";
  byId("result").replaceChildren();
  if (state.prediction) byId("result").append(...describe(state.prediction, state.input));
  if (state.error) byId("result").append(warning(state.error));
  byId("token-card").hidden = !state.tokens;
  byId("tokens").replaceChildren(...(state.tokens ? tokenLists(state.tokens) : []));
}

function warning(text) {
  const node = element("p", "warn", text);
  node.setAttribute("role", "alert");
  return node;
}

function describe(prediction, input) {
  if ("entities" in prediction) return [entities(prediction, input)];
  if ("tags" in prediction) return [words(prediction)];
  if ("answer" in prediction) return answers(prediction, input);
  if ("value" in prediction) return [element("p", "big", decimal(prediction.value, 3))];
  if ("choice" in prediction) {
    const best = prediction.index;
    const rows = prediction.probability.map((p, n) => [input.choices[n], p, n === best]);
    return [bars(rows)];
  }
  const chosen = "labels" in prediction ? prediction.labels : [prediction.label];
  const rows = Object.entries(prediction.probability)
    .map(([name, p]) => [name, p, chosen.includes(name)])
    .sort((a, b) => b[1] - a[1]);
  return [chosen.length ? null : element("p", "note", message("no_labels")), bars(rows)]
    .filter((node) => node);
}

function decimal(value, digits) {
  return value.toLocaleString(language, { minimumFractionDigits: 1, maximumFractionDigits: digits });
}

function percent(share) {
  const style = { style: "percent", minimumFractionDigits: 1, maximumFractionDigits: 1 };
  return share.toLocaleString(language, style);
}

function bars(rows) {
  const list = element("ul", "bars");
  const items = rows.map(([name, share, best]) => {
    const bar = element("i");
    bar.style.width = `${100 * share}%`;
    const label = element("span", "label", name);
    const track = element("span", "track", bar);
    track.setAttribute("aria-hidden", "true");
    return element("li", best ? "best" : "", label, track, element("span", "number", percent(share)));
  });
  list.append(...items.slice(0, SHOWN_LABELS));
  if (items.length <= SHOWN_LABELS) return list;
  const button = element("button", "", message("more", { n: items.length }));
  button.type = "button";
  button.addEventListener("click", () => {
    list.append(...items.slice(SHOWN_LABELS));
    button.remove();
  });
  return element("div", "", list, button);
}

// Offsets count Unicode characters, as in Python; strings of JavaScript count UTF-16 units.
function marked(text, spans, className) {
  const characters = Array.from(text);
  const node = element("p", `text ${className}`);
  let end = 0;
  for (const span of spans) {
    node.append(characters.slice(end, span.start).join(""));
    const mark = element("mark", span.className || "", characters.slice(span.start, span.end).join(""));
    if (span.type) mark.append(element("small", "", `${span.type} ${percent(span.probability)}`));
    node.append(mark);
    end = span.end;
  }
  node.append(characters.slice(end).join(""));
  return node;
}

function entities(prediction, input) {
  if (!prediction.entities.length) return element("p", "", message("no_entities"));
  const types = [...new Set(prediction.entities.map((entity) => entity.type))].sort();
  const spans = prediction.entities.map((entity) =>
    ({ ...entity, className: `e${types.indexOf(entity.type) % 4}` }));
  return marked(input, spans, "");
}

function words(prediction) {
  const items = prediction.tokens.map((token, n) =>
    element("li", "", token, element("small", "", prediction.tags[n])));
  return element("ul", "chips words", ...items);
}

function answers(prediction, input) {
  const nodes = prediction.answer
    ? [element("p", "big", prediction.answer), marked(input.context, [prediction], "quote")]
    : [element("p", "", message("no_answer"))];
  const others = (prediction.answers || []).filter((answer) => answer.answer !== prediction.answer);
  if (others.length) {
    const items = others.map((answer) =>
      element("li", "", answer.answer, element("span", "number", decimal(answer.score, 1))));
    nodes.push(element("h3", "", message("other_answers")), element("ol", "", ...items));
  }
  return nodes;
}

function tokenLists(tokens) {
  const nodes = tokens.truncated ? [warning(message("cut"))] : [];
  tokens.sequences.forEach((sequence, n) => {
    if (tokens.sequences.length > 1) nodes.push(element("h3", "", message("window", { n: n + 1 })));
    nodes.push(element("ul", "chips", ...sequence.map(chip)));
  });
  return nodes;
}

function chip(token) {
  const kinds = [];
  if (SPECIAL.test(token.token)) kinds.push("special");
  else if (token.type) kinds.push("second");
  if (token.token.startsWith("##")) kinds.push("piece");
  const node = element("li", kinds.join(" "), token.token);
  node.title = token.id;
  return node;
}

// --- start ------------------------------------------------------------------------------------

function start() {
  makeFields();
  for (const name of languages) {
    const button = element("button", "", name.toUpperCase());
    button.type = "button";
    button.lang = name;
    button.title = data.messages[name].name;
    button.addEventListener("click", () => setLanguage(name));
    byId("languages").append(button);
  }
  fill(data.examples[language]);
  setLanguage(language);
  for (const name of data.fields) {
    if (parameters.has(name)) byId(`field-${name}`).value = parameters.get(name);
  }
  byId("with-tokens").checked = parameters.has("tokens");
  byId("form").addEventListener("submit", (event) => {
    event.preventDefault();
    run();
  });
  byId("form").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      run();
    }
  });
  byId("with-tokens").addEventListener("change", () => shown && run());
  byId("example").addEventListener("click", () => fill(data.examples[language]));
  byId("clear").addEventListener("click", () => {
    fill({});
    shown = null;
    latest += 1;
    byId("output").hidden = true;
    byId("token-card").hidden = true;
    byId(`field-${data.fields[0]}`).focus();
  });
  if (parameters.has("run")) run();
}

start();
