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
// Looking inside. The words of a reply are parts of its text; what they looked at is lit in the
// messages before it. A word is passed by pointer or arrow keys, and kept by a click or Enter.
const SHOWN_FROM = 0.005;
const looks = []; // of this visit, each with the messages up to its reply
let arrived = null; // a look that came before its reply
let passing = null, kept = null; // { look, word }
const lookOf = (index) => looks.findLast((look) => look.index === index && look.messages.every(({ content }, i) => content === now().messages[i]?.content));
const settle = () => {
  const { messages } = now();
  if (!arrived || messages[arrived.index]?.content !== arrived.text) return;
  looks.push({ ...arrived, messages: messages.slice(0, arrived.index + 1) });
  if (looks.length > 50) looks.shift();
  arrived = null;
};
const litParts = ({ look, word }, index) => {
  const parts = [];
  for (const [at, [, place]] of look.source.entries()) {
    const weight = look.weights[word][at], inside = isInside(look, word, at), part = parts.at(-1);
    if (place?.[0] !== index) continue;
    if (part && part.from === place[1]) part.weight += weight; // bytes of one letter
    else if (weight >= SHOWN_FROM || inside) parts.push({ from: place[1], to: place[2], weight, inside, centre: Math.round(look.centres?.[word]) === at });
  }
  return parts.map(({ from, to, weight, inside, centre }) => [from, to, { tag: "mark", style: `--weight:${Math.min(weight, 1)}`, title: percent(weight), class: (inside ? "inside " : "") + (centre ? "centre" : "") }]);
};
const wordParts = (index) => (lookOf(index)?.words ?? []).flatMap(([, spot], word) => (spot ? [[...spot, { tag: "span", class: "word", "data-word": word }]] : []));
// A text as nodes, some of its letters in elements of their own.
const nodesOf = (text, parts) => {
  const letters = parts.length ? [...text] : [], nodes = [];
  let done = 0;
  for (const [from, to, { tag, ...attributes }] of parts) {
    if (from < done) continue;
    nodes.push(letters.slice(done, from).join(""), make(tag, attributes, letters.slice(from, to).join("")));
    done = to;
  }
  return [...nodes, parts.length ? letters.slice(done).join("") : text];
};
const light = () => {
  const seen = passing ?? kept;
  for (const [index, { content }] of now().messages.entries()) {
    const line = log.children[index], node = line?.querySelector(".said");
    line?.classList.toggle("unread", !!seen && index < seen.look.first);
    if (!node) continue; // it is being edited, or is about to be drawn
    const lit = seen?.look.weights && index < seen.look.index ? litParts(seen, index) : [];
    if (lit.length || node.querySelector("mark")) node.replaceChildren(...nodesOf(content, lit.length ? lit : wordParts(index)));
    for (const word of node.querySelectorAll(".word")) word.classList.toggle("on", seen?.look.index === index && Number(word.dataset.word) === seen.word);
  }
};
const pass = (next) => {
  if (next?.look === passing?.look && next?.word === passing?.word) return;
  passing = next;
  light();
};
const keep = (next) => {
  log.querySelector(".inside-word")?.remove();
  kept = next;
  if (next) {
    const shown = insideWord(next);
    log.children[next.look.index].querySelector(".said")?.after(shown);
    shown.scrollIntoView({ block: "nearest" });
    tell("chosen", { look: next.look });
  }
  light();
};
const factsOf = ({ look, word }) => [fillIn(words.PROBABILITY, quoted(look.words[word][0]), percent(look.probabilities[word])),
  ...(look.weights ? [fillIn(words.LOOKED_AT, lookedAt(look, word).slice(0, 3).map(([weight, token]) => `${quoted(token)} ${percent(weight)}`).join(", ")), fillIn(words.ENTROPY, look.entropy[word].toFixed(2))] : []),
  ...(look.centres ? [fillIn(words.CENTRE, quoted(look.source[Math.min(Math.round(look.centres[word]), look.source.length - 1)][0]))] : [])].join(" · ");
const insideWord = (at) => {
  const { look, word } = at, begin = [...look.text].slice(0, look.words[word][2]).join("");
  const others = look.alternatives[word].map(([token, probability, added]) => make("li", {},
    textButton(visible(token), () => ask("branch", { index: look.index, text: (begin + added).trimStart() }), "", { disabled: added === null }), percent(probability)));
  const close = () => (keep(null), (log.children[look.index].querySelector(".said") ?? log).focus());
  return make("div", { class: "inside-word" }, make("p", { class: "hint" }, factsOf(at)), iconButton("close", words.CLOSE, close),
    make("p", { class: "hint" }, words.INSTEAD_OF), make("ul", {}, ...others));
};
const wordKeys = (look) => (event) => {
  const at = passing?.look === look ? passing.word : -1, last = look.words.length - 1;
  const to = { ArrowRight: Math.min(at + 1, last), ArrowLeft: Math.max(at - 1, 0), Home: 0, End: last }[event.key];
  if (to !== undefined) pass({ look, word: to }), say(factsOf(passing));
  else if (event.key === "Enter" && at >= 0) keep(passing);
  else return;
  event.preventDefault();
};
const inspectable = (look) => look?.words && { tabindex: "0", role: "group", "aria-label": words.WORDS, onkeydown: wordKeys(look),
  onfocus: ({ target }) => target.matches(":focus-visible") && pass({ look, word: 0 }), onblur: () => passing && (pass(null), say(now().status)) };
const wordAt = ({ target }) => {
  const word = target.closest(".word"), look = word && lookOf([...log.children].indexOf(word.closest(".message")));
  return look ? { look, word: Number(word.dataset.word) } : null;
};
log.addEventListener("pointerover", (event) => pass(wordAt(event)));
log.addEventListener("pointerleave", () => pass(null));
log.addEventListener("click", (event) => wordAt(event) && keep(wordAt(event)));
hear("look", (look) => {
  arrived = look;
  draw();
});
hear("pass", pass);
hear("keep", keep);

const row = (message, index, all) => {
  const name = message.role === "user" ? "user" : "bot";
  const text = make("div", { class: "said", "data-testid": name, dir: "auto", ...inspectable(lookOf(index)) }, ...nodesOf(message.content, wordParts(index)));
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
  return () => ([...(log.children[index]?.querySelectorAll("button, .said") ?? [])].find((b) => b.ariaLabel === label && !b.disabled) ?? log).focus();
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
    settle();
    passing = kept = null;
    log.replaceChildren(...(messages.length ? messages.map(row) : [welcome()]));
    refocus();
    if (running && last?.role === "user") log.append(make("div", { class: "waiting", "aria-hidden": "true" }, words.THINKING));
  }
  if (atEnd || shown.count !== messages.length) log.scrollTop = log.scrollHeight;
  shown = { count: messages.length, running: running && last?.role === "assistant" };
  say(text);
  if (!running) tell("chosen", { look: lookOf(messages.length - 1), empty: !messages.length });
};

// What is being typed outlives a reload, as where the server was started again.
const DRAFT = "wren-draft";
document.addEventListener("input", ({ target }) => target === box() && sessionStorage.setItem(DRAFT, target.value));
const bringBack = () => (box() ? fill(sessionStorage.getItem(DRAFT)) : requestAnimationFrame(bringBack));
if (sessionStorage.getItem(DRAFT)) bringBack();

let saved = -1; // messages of the conversation as it was saved last
watch("value", () => {
  const { messages, running, done } = now();
  if (running) sessionStorage.removeItem(DRAFT);
  if (running) for (const index in marks) if (index >= messages.length - 1) delete marks[index];
  draw();
  if (running && !done && saved === messages.length) return;
  saved = messages.length;
  save();
});
hear("open", (opened) => {
  marks = opened.marks;
  set(opened.messages);
});
hear("consent", (given) => (consent = given));
document.addEventListener("keydown", (event) => {
  if (document.querySelector("dialog[open]")) return;
  if (event.key === "Escape") now().running ? document.querySelector("#stop").click() : kept && keep(null);
  if (event.key === "ArrowUp" && event.target === box() && !box().value && !now().running && lastOf("user") >= 0) {
    event.preventDefault();
    edit(lastOf("user"));
  }
});
draw();
