// Makes an element. Text goes in as text: nothing that is typed or said is ever markup.
const make = (tag, attributes, ...children) => {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
};
const ICONS = {
  copy: "M9 9h11v11H9z M5 15H4V4h11v1",
  edit: "M4 20l1-4L16 5l3 3L8 19z",
  retry: "M4 12a8 8 0 1 0 2.6-5.9 M4 4v5h5",
  continue: "M4 12h15 M13 6l6 6-6 6",
  undo: "M9 6L4 11l5 5 M4 11h10a5 5 0 0 1 0 10h-3",
  like: "M7 11v9H4v-9zM7 11l4-8c1.6 0 2.6 1.1 2.6 2.6V9H19a1.6 1.6 0 0 1 1.6 1.9l-1.3 7.3A2.2 2.2 0 0 1 17 20H7",
  correct: "M4 6h16 M4 12h10 M4 18h6 M14 18l2.5 2.5L21 16",
  delete: "M5 7h14 M10 4h4 M7 7l1 13h8l1-13",
  new: "M12 5v14 M5 12h14",
};
ICONS.dislike = ICONS.like;
ICONS.larger = ICONS.new;
ICONS.smaller = "M5 12h14";
ICONS.close = "M6 6l12 12 M18 6L6 18";
const iconButton = (icon, label, action, more = {}) => {
  const button = make("button", { type: "button", class: `icon ${icon}`, "aria-label": label, title: label, onclick: action, ...more });
  button.innerHTML = `<svg viewBox="0 0 24 24" aria-hidden="true"><path d="${ICONS[icon]}"/></svg>`;
  return button;
};
const textButton = (text, action, kind = "", more = {}) => make("button", { type: "button", class: `text ${kind}`, onclick: action, ...more }, text);
// A sentence of strings.py with its braces filled in.
const fillIn = (text, ...values) => text.replace(/\{\}/g, () => values.shift());
const percent = (share) => (share > 0 && share < 0.001 ? "< 0.1 %" : `${(100 * share).toFixed(1)} %`);
const visible = (token) => token.trim() || "␣";
const quoted = (token) => `“${visible(token)}”`;
// What a word of a reply looked at: [weight, source token, its number], the most first.
const lookedAt = ({ source, weights }, word) => weights[word].map((weight, at) => [weight, source[at][0], at]).sort((a, b) => b[0] - a[0]);
const isInside = ({ centres, reach }, word, at) => centres && Math.abs(at - centres[word]) <= reach;
const tell = (name, detail) => document.dispatchEvent(new CustomEvent(`wren-${name}`, { detail }));
const hear = (name, action) => document.addEventListener(`wren-${name}`, (event) => action(event.detail));
