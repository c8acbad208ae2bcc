// The page's state and what its controls do. The API key lives in one variable here and nowhere else.

import { ask } from "./api.js";
import { DocumentList, parseSeveral } from "./documents.js";
import { byId, element } from "./dom.js";
import { failure, Panel } from "./panel.js";
import { SAMPLES } from "./samples.js";
import { curl, python } from "./snippets.js";

const NO_RIVAL = "";
let key = "";
let offers = new Map();
let running = null;
let edited = false;
const documents = new DocumentList(byId("documents"), () => changed());
// One column: what is typed and what comes of it stand below each other.
const narrow = window.matchMedia("(max-width: 56rem)");

async function connect() {
  say("Asking the server what it offers …", "server");
  try {
    const { compressors } = await ask("v1/compressors", { key });
    offers = new Map(compressors.map((offer) => [offer.name, offer]));
    fillMenus(compressors);
    const { version, model } = await ask("info", { key });
    say(`Version ${version}, model ${model}`, "server");
    // a page that opens with a result says more than an empty one
    if (!edited && !byId("panels").childElementCount) await run({ first: true });
  } catch (error) {
    if (error.status === 401) askForKey(error.message);
    else say(`${error.message} Reload the page to try again.`, "server");
  }
}

function askForKey(message) {
  byId("key-row").hidden = false;
  say(key ? `The server did not take this key: ${message}` : "This server wants an API key.", "server");
  byId("key").focus();
}

function fillMenus(compressors) {
  const option = (offer) => element("option", { value: offer.name }, needsBudget(offer) ? `${offer.name} (needs a budget)` : offer.name);
  const chosen = compressors.find((offer) => offer.default) ?? compressors[0];
  byId("compressor").replaceChildren(...compressors.map(option));
  byId("compressor").value = chosen?.name ?? "";
  byId("rival").replaceChildren(element("option", { value: NO_RIVAL }, "nothing"), ...compressors.map(option));
  describe();
}

// Of a model that is not loaded nobody knows yet; the server then says so itself.
function needsBudget({ loaded, threshold }) {
  return loaded && threshold === null;
}

function describe() {
  for (const menu of ["compressor", "rival"]) {
    say(offers.get(byId(menu).value)?.description ?? "", `${menu}-note`);
  }
}

// What is asked for, or null after saying what is missing.
function request() {
  const query = byId("question").value;
  const sent = documents.values();
  if (!query.trim()) return missing("question", "Type a question first.");
  if (!sent.length) return missing("add", "Add a document first.");
  if (!offers.size) return missing("run", "The server has not said what it offers.");
  const names = [byId("compressor").value, byId("rival").value].filter(Boolean);
  const budget = budgetAsked();
  if (Number.isNaN(budget)) return missing("budget", "The budget must be a whole number from 1 up.");
  const ranking = names.find((name) => needsBudget(offers.get(name)));
  if (budget === null && ranking) return missing("budget", `${ranking} only ranks sentences: give a budget.`);
  return { query, sent, names, budget };
}

// null without one, NaN for what is no positive whole number.
function budgetAsked() {
  const field = byId("budget");
  if (!field.value && !field.validity.badInput) return null;
  const budget = Number(field.value);
  return Number.isSafeInteger(budget) && budget > 0 ? budget : Number.NaN;
}

function missing(id, message) {
  const field = byId(id);
  if (byId("fold").contains(field)) byId("fold").open = true;
  if (field.matches("input, textarea")) field.setAttribute("aria-invalid", "true");
  field.focus();
  say(message);
  return null;
}

function bodyOf({ query, sent, budget }, name, threshold = null) {
  const rows = sent.map(({ title, id, text }) => ({ ...(id && { id }), ...(title && { title }), text }));
  // companions and repeats depend on the threshold in a way that only the server knows, and the slider asks nobody
  const limits = { companions: false, repeats: true, ...(threshold !== null && { threshold }), ...(budget !== null && { budget }) };
  return { query, documents: rows, compressor: name, ...limits };
}

// first: nobody has asked yet, so the page stays where it is.
async function run({ first = false } = {}) {
  for (const field of ["question", "budget"]) byId(field).removeAttribute("aria-invalid");
  const asked = request();
  if (!asked) return;
  running?.abort();
  const mine = (running = new AbortController());
  byId("results").setAttribute("aria-busy", "true");
  say("Working …");
  try {
    const results = [];
    // one after the other: side by side they would slow each other down
    for (const name of asked.names) results.push(await result(asked, name, mine.signal));
    show(asked, results, first);
  } catch (error) {
    if (error.name !== "AbortError") throw error;
  } finally {
    if (running === mine) byId("results").removeAttribute("aria-busy");
  }
}

async function result(asked, name, signal) {
  const offer = offers.get(name);
  try {
    const began = performance.now();
    const answer = await ask("v1/compress", { key, body: bodyOf(asked, name), signal });
    const milliseconds = performance.now() - began;
    return { panel: new Panel({ offer, sent: asked.sent, result: answer, milliseconds, moved: (panel) => moved(asked, panel) }) };
  } catch (error) {
    if (error.name === "AbortError") throw error;
    if (error.status === 401) askForKey(error.message);
    return { offer, error };
  }
}

function show(asked, results, first) {
  byId("panels").removeAttribute("data-stale");
  byId("panels").replaceChildren(...results.map(({ panel, offer, error }) => panel?.node ?? failure(offer, error)));
  byId("panels").className = results.length > 1 ? "two" : "";
  say(results.map(({ panel, offer, error }) => panel?.summary ?? `${offer.name} failed: ${error.message}`).join(" "));
  snippets(asked, results[0].panel?.threshold ?? null);
  byId("code").hidden = false;
  if (!first && narrow.matches) byId("results").scrollIntoView({ block: "start" });
}

function moved(asked, panel) {
  say(panel.summary);
  if (panel.offer.name === asked.names[0]) snippets(asked, panel.offer.threshold === null ? null : panel.threshold);
}

let code = { curl: "", python: "" };
function snippets(asked, threshold) {
  const url = new URL("..", document.baseURI).href;
  const body = bodyOf(asked, asked.names[0], threshold);
  code = { curl: curl(url, body, Boolean(key)), python: python(url, body, Boolean(key)) };
  byId("snippet").value = code.python;
}

async function copy(kind) {
  const area = byId("snippet");
  area.value = code[kind];
  try {
    await navigator.clipboard.writeText(area.value);
    say("Copied.", "copied");
  } catch {
    area.select(); // browsers give pages without TLS no clipboard
    say("Selected: press Ctrl+C to copy.", "copied");
  }
}

function load({ question, documents: rows }) {
  if (edited && !window.confirm("Replace the question and the documents?")) return;
  byId("question").value = question;
  documents.replace(rows);
  edited = false;
  stale();
}

function addSeveral() {
  const found = parseSeveral(byId("paste-text").value);
  if (!found.length) return missing("paste-text", "Paste some text first.");
  const first = documents.append(found);
  byId("paste-text").value = "";
  byId("paste").open = false;
  byId("fold").open = true;
  first.querySelector("textarea").focus();
  say(`${found.length} documents added.`);
  changed();
}

function changed() {
  edited = true;
  stale();
}

function stale() {
  const count = documents.values().length;
  say(count === 1 ? "1 document" : `${count} documents`, "count");
  if (!byId("panels").childElementCount) return;
  byId("panels").setAttribute("data-stale", "");
  say("The input has changed, and this is the result of before: press “Prune” again.");
}

// Status lines are live regions: what is put there is read out.
function say(text, id = "status") {
  byId(id).textContent = text;
}

byId("input").addEventListener("submit", (event) => {
  event.preventDefault();
  run();
});
byId("input").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
  event.preventDefault();
  run();
});
byId("question").addEventListener("input", changed);
byId("documents").addEventListener("input", changed);
for (const menu of ["compressor", "rival", "budget"]) byId(menu).addEventListener("change", stale);
for (const menu of ["compressor", "rival"]) byId(menu).addEventListener("change", describe);
byId("add").addEventListener("click", () => documents.add().querySelector("[name=title]").focus());
byId("paste-add").addEventListener("click", addSeveral);
byId("copy-curl").addEventListener("click", () => copy("curl"));
byId("copy-python").addEventListener("click", () => copy("python"));
byId("scores").addEventListener("change", (event) => byId("panels").toggleAttribute("data-plain", !event.target.checked));
byId("key").addEventListener("keydown", (event) => {
  if (event.key !== "Enter") return;
  event.preventDefault();
  byId("key-use").click();
});
byId("key-use").addEventListener("click", () => {
  key = byId("key").value.trim();
  connect();
});
for (const sample of SAMPLES) {
  const button = element("button", { type: "button", className: "quiet" }, sample.name);
  button.addEventListener("click", () => load(sample));
  byId("samples").append(button);
}
byId("fold").open = !narrow.matches;
load(SAMPLES[0]);
connect();
