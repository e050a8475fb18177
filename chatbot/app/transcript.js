// The conversation, the buttons of its messages, and the keys. After elements.js; what it saves,
// opens and is told goes to library.js as events of the document.
const words = props.words;
let marks = {}; // of messages, by their index: like, dislike, corrected
let consent = null; // to keep ratings: yes, no, not asked
let shown = { count: -1, running: false };
const now = () => props.value ?? { messages: [], status: "", running: false, done: true };
const log = make("div", { class: "log", role: "log", tabindex: "0", "aria-label": words.CONVERSATION });
const status = make("p", { role: "status" });
const clear = textButton(words.CLEAR, () => change([], ""), "clear");
element.replaceChildren(log, make("div", { class: "foot", id: "status" }, status, clear));

const box = () => document.querySelector("#message textarea");
const ask = (act, detail = {}) => now().running || trigger("submit", { act, ...detail });
const say = (text) => (status.textContent = text);
const save = () => tell("changed", { messages: now().messages, marks, running: now().running });
const set = (messages, text = "") => {
  props.value = { messages, status: text, running: false, done: true };
  draw();
};
const fill = (text) => {
  box().value = text;
  box().dispatchEvent(new Event("input"));
  box().focus();
};
// Messages are taken away, and what stands in the box may change.
const change = (messages, text, said = "") => {
  for (const index in marks) if (index >= messages.length) delete marks[index];
  set(messages, said);
  trigger("clear");
  fill(text);
  save();
};
const lastOf = (role) => now().messages.map((message) => message.role).lastIndexOf(role);
const undo = () => {
  const index = lastOf("user");
  change(now().messages.slice(0, index), now().messages[index].content);
};

const copy = async (text) => {
  try {
    await navigator.clipboard.writeText(text);
    say(words.COPIED);
  } catch { // a page without HTTPS has no clipboard, but can copy what is selected
    const field = make("textarea", { class: "unseen" });
    field.value = text;
    document.body.append(field);
    field.select();
    say(document.execCommand("copy") ? words.COPIED : words.NOT_COPIED);
    field.remove();
  }
};

// Changes a message where it stands: one's own is sent anew, one of the bot's is corrected.
const edit = (index) => {
  const message = now().messages[index], own = message.role === "user";
  const field = make("textarea", { "aria-label": own ? words.EDITING : words.CORRECTING, rows: "2" });
  field.value = message.content;
  const done = () => {
    const text = field.value.trim();
    if (!text) return say(words.BLANK);
    draw();
    own ? ask("edit", { index, text }) : rate(index, "dislike", text);
  };
  const close = () => (draw(), box().focus());
  const keys = (event) => {
    if (event.key === "Escape") close();
    else if (event.key === "Enter" && !event.shiftKey && !event.isComposing) done();
    else return;
    event.preventDefault();
    event.stopPropagation();
  };
  field.addEventListener("keydown", keys);
  const label = make("p", { class: "hint" }, own ? words.EDITING : words.CORRECTING);
  const buttons = make("div", { class: "buttons" }, textButton(words.CANCEL, close),
    textButton(own ? words.SAVE_EDIT : words.SAVE_CORRECTION, done, "primary"));
  draw();
  log.children[index].replaceChildren(make("div", { class: "editor" }, label, field, buttons));
  field.focus();
  field.setSelectionRange(field.value.length, field.value.length);
};

const askConsent = () => new Promise((resolve) => {
  const button = (text, value, kind) => make("button", { value, class: `text ${kind}` }, text);
  const dialog = make("dialog", { "aria-labelledby": "consent", onclose: () => (dialog.remove(), resolve(dialog.returnValue)) },
    make("form", { method: "dialog" }, make("h2", { id: "consent" }, words.CONSENT), make("p", {}, props.consent),
      make("div", { class: "buttons" }, button(words.CONSENT_NO, "no", ""), button(words.CONSENT_YES, "yes", "primary"))));
  element.append(dialog);
  dialog.showModal();
});
const rate = async (index, rating, correction = null) => {
  if (consent === null) {
    const said = await askConsent();
    if (said) tell("consent", said === "yes");
  }
  if (!consent) return say(words.NOT_KEPT);
  const messages = now().messages;
  let first = 0; // what was disliked is not learned from as part of a later exchange
  for (let i = 0; i < index; i++) if (marks[i] === "dislike") first = i + 1;
  const kept = await server.rate({ messages: messages.slice(first, index + 1), rating, correction })
    .catch(() => ({ error: words.UNREACHABLE }));
  if (kept.error) return say(kept.error);
  marks[index] = correction ? "corrected" : rating;
  set(messages.map((m, i) => (i === index && correction ? { ...m, content: correction } : m)), words.THANKS);
  save();
};

const actions = (message, index, last) => {
  const bar = make("div", { class: "actions" }, iconButton("copy", words.COPY, () => copy(message.content)));
  if (message.role === "user") bar.append(iconButton("edit", words.EDIT, () => edit(index)));
  else if (props.consent) {
    const mark = marks[index];
    for (const name of ["like", "dislike"])
      bar.append(iconButton(name, words[name.toUpperCase()], () => rate(index, name), { "aria-pressed": String(mark === name), disabled: !!mark }));
    bar.append(iconButton("correct", words.CORRECT, () => edit(index), { disabled: mark === "like" || mark === "corrected" }));
  }
  if (last) {
    bar.append(iconButton("retry", words.RETRY, () => ask("retry")));
    if (message.role === "assistant") bar.append(iconButton("continue", words.CONTINUE, () => ask("continue")));
    bar.append(iconButton("undo", words.UNDO, undo));
  }
  return bar;
};
const row = (message, index, all) => {
  const name = message.role === "user" ? "user" : "bot";
  const text = make("div", { class: "said", "data-testid": name, dir: "auto" }, message.content);
  const mark = marks[index] === "corrected" ? [make("span", { class: "hint" }, words.CORRECTED)] : [];
  const speaker = make("span", { class: "unseen" }, name === "user" ? words.YOU : words.TITLE);
  const bar = now().running ? [] : [actions(message, index, index === all.length - 1)];
  return make("div", { class: `message ${name}` }, speaker, text, ...mark, ...bar);
};
const welcome = () => make("div", { class: "welcome" }, make("p", {}, words.WELCOME),
  make("div", { class: "examples" }, ...words.EXAMPLES.map((text) => textButton(text, () => ask("send", { text })))));

// Drawing anew takes the focused button away: the same one, or else the log, has the focus again.
const focused = () => {
  const from = document.activeElement;
  if (!log.contains(from) || from === log) return () => {};
  const index = [...log.children].findIndex((child) => child.contains(from)), label = from.ariaLabel;
  return () => ([...(log.children[index]?.querySelectorAll("button") ?? [])].find((b) => b.ariaLabel === label && !b.disabled) ?? log).focus();
};

const draw = () => {
  const { messages, running, status: text } = now();
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 80;
  const last = messages.at(-1);
  log.setAttribute("aria-busy", running);
  clear.hidden = running || !messages.length;
  if (running && shown.running && shown.count === messages.length) log.lastChild.querySelector(".said").textContent = last.content;
  else {
    const refocus = focused();
    log.replaceChildren(...(messages.length ? messages.map(row) : [welcome()]));
    refocus();
    if (running && last?.role === "user") log.append(make("div", { class: "waiting", "aria-hidden": "true" }, words.THINKING));
  }
  if (atEnd || shown.count !== messages.length) log.scrollTop = log.scrollHeight;
  shown = { count: messages.length, running: running && last?.role === "assistant" };
  say(text);
};

let saved = -1; // messages of the conversation as it was saved last
watch("value", () => {
  const { messages, running, done } = now();
  if (running) for (const index in marks) if (index >= messages.length - 1) delete marks[index];
  draw();
  if (running && !done && saved === messages.length) return;
  saved = messages.length;
  save();
});
hear("open", (opened) => {
  marks = opened.marks;
  set(opened.messages);
  trigger("clear");
});
hear("consent", (given) => (consent = given));
document.addEventListener("keydown", (event) => {
  if (document.querySelector("dialog[open]")) return;
  if (event.key === "Escape" && now().running) document.querySelector("#stop").click();
  if (event.key === "ArrowUp" && event.target === box() && !box().value && !now().running && lastOf("user") >= 0) {
    event.preventDefault();
    edit(lastOf("user"));
  }
});
draw();
