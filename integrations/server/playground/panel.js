// One compressor's result: facts, a threshold slider, and each document with kept and removed sentences.

import { characters, isKept, keptText, promptText, scaleOf, startOf, unitsOf } from "./choice.js";
import { element, plural, spoken } from "./dom.js";

let made = 0;

export class Panel {
  // offer: of GET /v1/compressors; sent: the documents as they were sent; milliseconds: as the browser saw it.
  constructor({ offer, sent, result, milliseconds, moved }) {
    this.offer = offer;
    this.result = result;
    this.milliseconds = milliseconds;
    this.moved = moved;
    this.threshold = null;
    this.documents = result.documents.map((answer) => documentOf(answer, sent[answer.index]));
    this.whole = promptText(this.documents.map(({ title, source }) => ({ title, text: source })));
    this.node = this._build();
    this._show();
  }

  get tokens() {
    if (this.threshold === null) return { count: this.result.tokens_after, about: false };
    // no tokenizer here: tokens are taken to be spread evenly over the characters
    const share = this.prompt.length / Math.max(this.whole.length, 1);
    const count = Math.round(this.result.tokens_before * Math.min(share, 1));
    return { count, about: share > 0 && share < 1 };
  }

  get prompt() {
    if (this.threshold === null) return this.result.text;
    return promptText(this.documents.map((document) => ({ title: document.title, text: this._text(document) })));
  }

  // One sentence for the status line.
  get summary() {
    const { count, about } = this.tokens;
    const [kept, all] = [this._kept(), this._units().length];
    return `${this.offer.name}: ${kept} of ${plural(all, noun(this._units()))} kept, ${this.result.tokens_before} to ${about ? "about " : ""}${count} tokens.`;
  }

  _units() {
    return this.documents.flatMap(({ units }) => units);
  }

  _kept() {
    return this._units().filter((unit) => isKept(unit, this.threshold)).length;
  }

  _text(document) {
    return document.scored ? keptText(document.letters, document.units, this.threshold) : document.answer.text;
  }

  _build() {
    const { result, offer } = this;
    this.facts = element("p", { className: "facts" });
    this.fill = element("i");
    this.meter = element("div", { className: "meter" }, this.fill);
    this.meter.setAttribute("role", "img");
    this.output = element("pre", { dir: "auto" });
    const title = element("h3", { id: `panel-${++made}` }, offer.name, " ", state(result));
    const node = element("section", { className: "panel" }, title, ...notices(result), this.facts, this.meter);
    node.setAttribute("aria-labelledby", title.id);
    if (this._units().some(({ score }) => score !== null)) node.append(this._slider());
    for (const document of this.documents) document.node = article(document);
    this.shown = element("div");
    this.droppedCount = element("span");
    this.dropped = element("details", { className: "dropped" }, element("summary", {}, this.droppedCount));
    node.append(this.shown, this.dropped);
    const latency = element("p", { className: "hint" }, this._latency());
    node.append(element("details", {}, element("summary", {}, "What goes into the prompt"), this.output), latency);
    return node;
  }

  _slider() {
    const isProbability = this.offer.threshold !== null;
    const { low, high } = scaleOf(this._units(), isProbability);
    const settings = { type: "range", min: low, max: high, step: (high - low) / 200, id: `threshold-${made}` };
    this.range = element("input", settings);
    // with a budget it is not the threshold that decided
    const used = isProbability && this.result.budget === undefined ? this.offer.threshold : null;
    this.start = startOf(this._units(), used, high);
    this.range.value = this.start;
    this.range.addEventListener("input", () => this._move(Number(this.range.value)));
    this.reset = element("button", { type: "button", className: "quiet" }, "Server’s choice");
    this.reset.addEventListener("click", () => this._move(null));
    this.level = element("output", { htmlFor: this.range.id });
    const label = element("label", { htmlFor: this.range.id }, isProbability ? "Threshold " : "Lowest score ", this.level);
    return element("div", { className: "threshold" }, label, this.range, this.reset);
  }

  _move(threshold) {
    this.threshold = threshold;
    if (threshold === null) this.range.value = this.start;
    this._show();
    this.moved(this);
  }

  _show() {
    for (const document of this.documents) {
      document.units.forEach((unit) => paint(unit, isKept(unit, this.threshold)));
      document.facts.textContent = documentFacts(document, this.threshold);
    }
    this._fold();
    this._showTokens();
    this.output.textContent = this.prompt || "(nothing)";
    if (!this.range) return;
    const why = this.result.budget === undefined ? ", as the server chose" : ", the lowest that is kept";
    const level = (this.threshold ?? this.start).toFixed(3) + (this.threshold === null ? why : "");
    this.level.textContent = level;
    this.range.setAttribute("aria-valuetext", level);
    this.reset.hidden = this.threshold === null;
  }

  // Documents of which nothing is kept go behind one line, each in its place; there may be hundreds.
  _fold() {
    const states = this.documents.map((document) => isDropped(document, this.threshold));
    if (states.every((dropped, at) => dropped === this.documents[at].folded)) return;
    this.documents.forEach((document, at) => {
      if (states[at] !== document.folded) document.node.open = !states[at];
      document.folded = states[at];
      (states[at] ? this.dropped : this.shown).append(document.node);
    });
    const empty = states.filter(Boolean).length;
    this.dropped.hidden = !empty;
    this.droppedCount.textContent = `${plural(empty, "document")} of which nothing is kept`;
  }

  _showTokens() {
    const { tokens_before: before, budget, exact } = this.result;
    const { count, about } = this.tokens;
    const share = Math.min(count / Math.max(before, 1), 1);
    const left = before ? ` (${Math.round(100 * share)}% kept)` : "";
    const over = budget !== undefined && count > budget ? ", over the budget" : "";
    const limit = budget === undefined ? "" : ` · budget ${budget}${over}`;
    const strong = element("strong", {}, `${before} → ${about ? "≈ " : ""}${count} tokens`);
    this.facts.replaceChildren(strong, `${left} · ${this._kept()} of ${plural(this._units().length, noun(this._units()))} kept${limit}`);
    this.facts.title = `counted with ${this.result.tokenizer}${exact ? "" : ", which stands in for your model’s own"}`;
    this.meter.setAttribute("aria-label", `${Math.round(100 * share)}% of the tokens are kept`);
    this.fill.style.width = `${100 * share}%`;
  }

  _latency() {
    const { seconds } = this.result;
    const stages = ["queue", "tokenize", "infer", "select"].map((name) => `${name} ${milliseconds(seconds[name] ?? 0)}`);
    return `${Math.round(this.milliseconds)} ms in the browser, ${milliseconds(seconds.total)} on the server (${stages.join(", ")})`;
  }
}

// A compressor that could not answer.
export function failure(offer, error) {
  const title = element("h3", { id: `panel-${++made}` }, offer.name);
  const type = error.type ? `${error.type}: ` : "";
  const node = element("section", { className: "panel" }, title, element("p", { className: "notice bad" }, type + error.message));
  node.setAttribute("aria-labelledby", title.id);
  return node;
}

// Two decimals, "<0.01" for what they cannot show.
export function format(score) {
  if (score === null) return "–";
  return score > 0 && score < 0.005 ? "<0.01" : score.toFixed(2).replace(/^-0\.00$/, "0.00");
}

// What is shown of a document. A summary has no source text and no units: its own text is all there is.
function documentOf(answer, sent) {
  const scored = Boolean(answer.kept_spans || answer.removed_spans);
  const source = sent?.text ?? "";
  const units = unitsOf(answer);
  const title = answer.title;
  return { answer, scored, source, title, units, letters: characters(source), number: sent?.number ?? answer.index + 1 };
}

function article(document) {
  const { answer, number } = document;
  document.facts = element("small");
  const name = element("bdi", {}, answer.title || `Document ${number}`);
  const id = answer.id ? [element("bdi", { className: "id" }, answer.id)] : [];
  const head = element("h4", {}, element("span", { className: "number" }, `${number}`), " ", name, " ", ...id);
  const text = element("p", { className: "text", dir: "auto" }, ...(document.scored ? sentences(document) : [answer.text]));
  return element("details", { className: "document" }, element("summary", {}, head, document.facts), text);
}

function sentences({ letters, units }) {
  const parts = [];
  let last = 0;
  for (const unit of units) {
    unit.word = spoken("");
    const score = element("small", { className: "score" }, format(unit.score));
    unit.node = element("span", {}, letters.slice(unit.start, unit.end).join(""));
    parts.push(letters.slice(last, unit.start).join(""), unit.node, unit.word, score);
    last = unit.end;
  }
  return [...parts, letters.slice(last).join("")];
}

function paint(unit, kept) {
  if (!unit.node) return;
  unit.node.className = kept ? "unit kept" : "unit removed";
  unit.word.textContent = kept ? " kept, score " : " removed, score ";
}

// What is chosen among: words where they are short, as in the command's own output.
function noun(units) {
  const length = units.reduce((sum, { start, end }) => sum + end - start, 0);
  return units.length > 1 && length < 12 * units.length ? "word" : "sentence";
}

function isDropped({ answer, units, scored }, threshold) {
  if (!scored) return answer.dropped;
  return !units.some((unit) => isKept(unit, threshold));
}

function documentFacts({ answer, units, scored }, threshold) {
  const score = answer.score === null ? "" : `relevance ${format(answer.score)}, `;
  if (!scored) return `${score}${answer.sources ? "a summary" : "not scored by sentence"}`;
  const kept = units.filter((unit) => isKept(unit, threshold)).length;
  return `${score}${kept ? `${kept} of ${plural(units.length, noun(units))} kept` : "nothing kept"}`;
}

function state({ status }) {
  return element("span", { className: `badge ${status}` }, status);
}

function notices({ status, reason, warnings }) {
  const why = reason ? [[status === "degraded" ? `Degraded: ${reason}. The original text stands in.` : reason, status]] : [];
  const all = [...why, ...(warnings ?? []).map((warning) => [`Note: ${warning}`, "degraded"])];
  return all.map(([text, kind]) => element("p", { className: kind === "degraded" ? "notice bad" : "hint" }, text));
}

function milliseconds(seconds) {
  return `${(1000 * seconds).toFixed(seconds < 0.1 ? 1 : 0)} ms`;
}
