// Make elements out of text. Nothing on this page is ever parsed as HTML.

// An element with properties and children; strings become text nodes.
export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

export function byId(id) {
  return document.getElementById(id);
}

// "1 document", "3 documents".
export function plural(number, word) {
  return `${number} ${word}${number === 1 ? "" : "s"}`;
}

// For readers of the screen alone.
export function spoken(text) {
  return element("span", { className: "spoken" }, text);
}
