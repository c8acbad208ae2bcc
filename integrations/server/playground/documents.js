// The list of documents that can be edited: one title, id and text each.

import { element } from "./dom.js";

export class DocumentList {
  constructor(list, changed) {
    this.list = list;
    this.changed = changed;
    this.made = 0;
  }

  // What is typed, in order; number is the place in the list. Entirely empty documents are left out.
  values() {
    const rows = [...this.list.children].map((item, at) => ({ number: at + 1, ...read(item) }));
    return rows.filter(({ title, id, text }) => title || id || text);
  }

  replace(documents) {
    this.list.replaceChildren();
    documents.forEach((document) => this.add(document));
  }

  add({ title = "", id = "", text = "" } = {}) {
    const item = this._item(++this.made);
    const fields = { title, id, text };
    for (const [name, value] of Object.entries(fields)) field(item, name).value = value;
    this.list.append(item);
    this._renumber();
    return item;
  }

  // Add documents after those that have something in them.
  append(documents) {
    [...this.list.children].filter((item) => !Object.values(read(item)).some(Boolean)).forEach((item) => item.remove());
    return documents.map((document) => this.add(document))[0];
  }

  _item(key) {
    const remove = element("button", { type: "button", className: "quiet" }, "Remove");
    const short = [labelled("Title", "input", "title", key), labelled("Id", "input", "id", key)];
    const set = element("fieldset", {}, element("legend"), remove, element("div", { className: "pair" }, ...short));
    set.append(labelled("Text", "textarea", "text", key));
    const item = element("li", {}, set);
    remove.addEventListener("click", () => this._remove(item));
    return item;
  }

  // Focus goes to the next document, so that the keyboard is not thrown back to the top of the page.
  _remove(item) {
    const next = item.nextElementSibling ?? item.previousElementSibling;
    item.remove();
    if (!next) this.add();
    field(next ?? this.list.firstElementChild, "text").focus();
    this._renumber();
    this.changed();
  }

  _renumber() {
    [...this.list.children].forEach((item, at) => {
      item.querySelector("legend").textContent = `Document ${at + 1}`;
      item.querySelector("button").setAttribute("aria-label", `Remove document ${at + 1}`);
    });
  }
}

// Documents out of one text: lines of three dashes or more part them, a first line "# ..." is a title.
export function parseSeveral(text) {
  const parts = text.split(/^[ \t]*-{3,}[ \t]*$/m).map((part) => part.trim());
  return parts.filter(Boolean).map((part) => {
    const [, title = "", rest] = /^(?:# +(.*)(?:\n|$))?([^]*)$/.exec(part);
    return { title: title.trim(), text: rest.trim() };
  });
}

function labelled(name, tag, key, number) {
  const id = `document-${number}-${key}`;
  const control = element(tag, { id, name: key, dir: "auto", autocomplete: "off" });
  if (tag === "textarea") control.rows = 4;
  return element("div", {}, element("label", { htmlFor: id }, name), control);
}

function field(item, name) {
  return item.querySelector(`[name=${name}]`);
}

function read(item) {
  return { title: field(item, "title").value, id: field(item, "id").value, text: field(item, "text").value };
}
