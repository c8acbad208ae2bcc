// The figures of /v1/stats as tables, newest hour first.

import { ask } from "./api.js";

const LABELS = {
  requests: "Conversations", degraded: "of them degraded", tokens_in: "Tokens in", tokens_saved: "Tokens saved",
  tokens_would_save: "Tokens that audit and shadow would have saved", prefix_tokens: "Tokens of prefixes kept to the byte",
  output_tokens: "Output tokens seen", answer_words: "Words of answers that stood in the context",
  answer_words_lost: "of them lost by pruning (shadow)", seconds: "Our seconds", money_saved: "Dollars saved",
  money_would_save: "Dollars that audit and shadow would have saved",
  money_spent: "Dollars of our own time", money_net: "Dollars net", output_money: "Dollars of output seen",
};

const find = (id) => document.getElementById(id);
const number = (value) => value.toLocaleString("en", { maximumFractionDigits: 4 });

function row(...cells) {
  const line = document.createElement("tr");
  for (const cell of cells) line.insertCell().append(cell);
  return line;
}

function bar(hour) {
  const share = hour.tokens_in ? (hour.tokens_saved + hour.tokens_would_save) / hour.tokens_in : 0;
  const meter = document.createElement("meter");
  meter.value = share;
  meter.title = `${Math.round(100 * share)} %`;
  const cell = document.createElement("span");
  cell.append(meter, ` ${Math.round(100 * share)} %`);
  return cell;
}

async function show() {
  try {
    const stats = await ask("v1/stats", { key: find("key").value });
    find("totals").replaceChildren(...Object.entries(LABELS).map(([name, label]) => row(label, number(stats.totals[name]))));
    find("hours").replaceChildren(...stats.hours.toReversed().map((hour) => row(
      new Date(1000 * hour.hour).toLocaleString(), hour.key, number(hour.requests), number(hour.tokens_in),
      number(hour.tokens_saved), number(hour.prefix_tokens), number(hour.output_tokens), number(hour.money_net), bar(hour),
    )));
    find("status").textContent = stats.hours.length ? "" : "Nothing was asked yet.";
  } catch (error) {
    find("status").textContent = error.message;
  }
}

find("ask").addEventListener("submit", (event) => { event.preventDefault(); show(); });
show();
