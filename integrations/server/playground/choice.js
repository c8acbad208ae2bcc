// What a threshold keeps of returned scores, and the prompt text that comes of it: plain functions, as in the library.

// Offsets count Unicode characters, which JavaScript's own string indices do not.
export function characters(text) {
  return Array.from(text);
}

// The units of an answered document in order: {start, end, score, kept}, kept as the server decided.
export function unitsOf(document) {
  const mark = (spans, kept) => (spans ?? []).map((span) => ({ ...span, kept }));
  const units = [...mark(document.kept_spans, true), ...mark(document.removed_spans, false)];
  return units.sort((one, other) => one.start - other.start || one.end - other.end);
}

// Whether a unit is kept; threshold null is the server's choice. A unit without a score stays as the server had it.
export function isKept(unit, threshold) {
  return threshold === null || unit.score === null ? unit.kept : unit.score >= threshold;
}

// Kept text of one document: kept neighbours with what lies between them, the rest joined by what it lost.
export function keptText(letters, units, threshold) {
  let text = "";
  let last = null;
  let neighbour = false;
  for (const unit of units) {
    const kept = isKept(unit, threshold);
    if (kept && last !== null) text += neighbour ? letters.slice(last, unit.start).join("") : joiner(letters, last, unit.start);
    if (kept) {
      text += letters.slice(unit.start, unit.end).join("");
      last = unit.end;
    }
    neighbour = kept;
  }
  return text;
}

// A line break where a line ended, a space where there was white space or where two words would fuse, else nothing.
export function joiner(letters, start, end) {
  const gap = letters.slice(start, end);
  if (gap.includes("\n")) return "\n";
  if (gap.some(isSpace)) return " ";
  const word = /^[0-9A-Za-z]$/;
  return word.test(letters[start - 1] ?? "") && word.test(letters[end] ?? "") ? " " : "";
}

// Documents as they go into the prompt: each with its title on a line of its own, empty ones left out.
export function promptText(parts) {
  const filled = parts.filter(({ text }) => hasText(text));
  return filled.map(({ title, text }) => (hasText(title) ? `${title}\n${text}` : text)).join("\n\n");
}

// The slider's ends: probabilities have theirs, other scores are measured.
export function scaleOf(units, isProbability) {
  const scores = units.map((unit) => unit.score).filter((score) => score !== null);
  if (isProbability || !scores.length) return { low: 0, high: 1 };
  const [low, high] = [Math.min(...scores), Math.max(...scores)];
  return { low, high: high > low ? high : low + 1 };
}

// Where the server drew the line: its threshold when it used one, else the lowest score that it kept.
export function startOf(units, threshold, high) {
  if (threshold !== null) return threshold;
  const kept = units.filter((unit) => unit.kept && unit.score !== null).map((unit) => unit.score);
  return kept.length ? Math.min(...kept) : high;
}

function isSpace(letter) {
  return letter !== "\ufeff" && /[\s\x1c-\x1f\x85]/.test(letter);
}

function hasText(text) {
  return characters(text).some((letter) => !isSpace(letter));
}
