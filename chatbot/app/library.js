// The list of conversations. They are in this browser alone: what is saved goes into the value of
// this part, which page.py has written to local storage. After elements.js.
const words = props.words;
const channel = new BroadcastChannel("wren"); // other tabs have a copy each, and are told of changes
let running = false;
let asking = null; // the conversation that is being renamed or deleted: [what, id]
const empty = { current: null, items: [], consent: null };
const library = () => (Array.isArray(props.value?.items) ? props.value : empty);
const find = (id) => library().items.find((item) => item.id === id);
const cut = (text) => [...text].slice(0, props.limits.title).join(""); // no character in two
const titleOf = (item) => item.title ?? cut(item.messages[0].content.trim().split(/\s+/).join(" "));
const list = make("ul", {});
const note = make("p", { class: "hint", role: "status" });
const say = (text) => (note.textContent = text);

// Newest first, and no more than a browser can hold.
const keep = (next, news) => {
  const items = [...next.items].sort((a, b) => b.changed - a.changed);
  let room = props.limits.characters;
  const kept = items.filter((item, index) => (room -= JSON.stringify(item).length) >= 0 && index < props.limits.conversations || index === 0);
  props.value = { ...next, items: kept };
  if (news) channel.postMessage(news);
  draw();
  if (kept.length < items.length) say(words.DROPPED);
};
const put = (item, current) => keep({ ...library(), current, items: [item, ...library().items.filter(({ id }) => id !== item.id)] }, { put: item });
const without = (id) => library().items.filter((item) => item.id !== id);
const show = () => {
  const item = find(library().current);
  tell("consent", library().consent);
  tell("open", { messages: item?.messages ?? [], marks: { ...item?.marks } });
};
const open = (id) => {
  asking = null;
  say("");
  keep({ ...library(), current: id });
  show();
  if (innerWidth < 768) sidebar(false);
};
const remove = (id) => {
  keep({ ...library(), items: without(id) }, { drop: id });
  id === library().current ? open(null) : ((asking = null), draw());
};
const newId = () => Date.now().toString(36) + Math.random().toString(36).slice(2);
const sidebar = (wanted) => {
  const bar = element.closest(".sidebar"), button = bar.querySelector(".toggle-button");
  if (bar.classList.contains("open") !== wanted) button.click();
};

const renaming = (item) => {
  const field = make("input", { "aria-label": words.NEW_NAME, maxlength: props.limits.title });
  field.value = titleOf(item);
  let done = false;
  const end = (save) => {
    if (done) return;
    done = true;
    asking = null;
    save && field.value.trim() ? put({ ...item, title: field.value.trim() }, library().current) : draw();
  };
  field.addEventListener("keydown", (event) => ["Enter", "Escape"].includes(event.key) && end(event.key === "Enter"));
  field.addEventListener("blur", () => end(true));
  return field;
};
const row = (item) => {
  const start = (what) => () => ((asking = [what, item.id]), draw());
  const [what, id] = asking ?? [];
  if (id === item.id && what === "rename") return make("li", {}, renaming(item));
  if (id === item.id) return make("li", { class: "asking" }, textButton(words.REALLY_DELETE, () => remove(item.id), "danger"), textButton(words.KEEP, start(null)));
  const current = item.id === library().current;
  const title = make("button", { type: "button", class: "title", "aria-current": current && "true", disabled: running, onclick: () => open(item.id) }, titleOf(item));
  return make("li", { class: current ? "current" : "" }, title,
    iconButton("edit", `${words.RENAME}: ${titleOf(item)}`, start("rename"), { disabled: running }), iconButton("delete", `${words.DELETE}: ${titleOf(item)}`, start("delete"), { disabled: running }));
};
const draw = () => {
  if (asking && !asking[0]) asking = null;
  const { items } = library();
  list.replaceChildren(...(items.length ? items.map(row) : [make("li", { class: "hint" }, words.NO_CONVERSATIONS)]));
  list.querySelector("input, .asking button")?.focus();
  begin.disabled = running;
  if (ratings) ratings.querySelector("input").checked = library().consent === true;
};

const save = async (kind) => {
  const item = find(library().current);
  if (!item) return say(words.NOTHING_TO_EXPORT);
  const file = await server.write_file({ kind, title: titleOf(item), messages: item.messages }).catch(() => ({ error: words.UNREACHABLE }));
  if (file.error) return say(file.error);
  const name = titleOf(item).replace(/[^\p{L}\p{N}]+/gu, "-").slice(0, 40) || "conversation";
  const url = URL.createObjectURL(new Blob([file.text]));
  make("a", { href: url, download: `${name}.${kind}` }).click();
  URL.revokeObjectURL(url);
};
const load = async (file) => {
  if (!file) return;
  if (file.size > 4 * props.limits.characters) return say(words.TOO_BIG);
  const read = await server.read_file(await file.text()).catch(() => ({ error: words.UNREACHABLE }));
  if (read.error) return say(read.error);
  const id = newId();
  say(words.IMPORTED);
  put({ id, title: read.title, messages: read.messages, marks: {}, changed: Date.now() }, id);
  show();
};
const begin = textButton(words.NEW, () => open(null), "new");
begin.prepend(iconButton("new", "", null).firstChild);
const picker = make("input", { type: "file", accept: ".json,.md,.markdown", class: "unseen", tabindex: "-1", "aria-label": words.IMPORT });
picker.addEventListener("change", () => (load(picker.files[0]), (picker.value = "")));
const ratings = props.rated && make("label", { class: "ratings" }, make("input", { type: "checkbox", onchange: (event) => tell("consent", event.target.checked) }), words.KEEP_RATINGS);
element.replaceChildren(begin, make("nav", { "aria-label": words.CONVERSATIONS }, list), note,
  make("div", { class: "files" }, make("span", {}, words.EXPORT), textButton(words.EXPORT_JSON, () => save("json")), textButton(words.EXPORT_MARKDOWN, () => save("md")),
    textButton(words.IMPORT, () => picker.click()), picker),
  make("p", { class: "hint" }, props.note), ...(ratings ? [ratings] : []));

hear("changed", ({ messages, marks, running: busy }) => {
  running = busy;
  const { current } = library();
  if (!messages.length) return keep({ ...library(), current: null, items: without(current) }, { drop: current });
  const item = find(current) ?? { id: newId(), title: null };
  put({ ...item, messages, marks: { ...marks }, changed: Date.now() }, item.id);
});
hear("consent", (consent) => consent === library().consent || keep({ ...library(), consent }, { consent }));
channel.onmessage = ({ data }) => {
  const { current } = library();
  if (data.put) keep({ ...library(), items: [data.put, ...without(data.put.id)] });
  else if (data.drop) keep({ ...library(), items: without(data.drop) });
  else keep({ ...library(), consent: data.consent });
  if (!running && [data.put?.id, data.drop].includes(current)) show();
};
watch("value", () => (draw(), show())); // what was stored, once the page has loaded
element.closest(".sidebar").querySelector(".toggle-button").setAttribute("aria-label", words.SIDE_BAR);
sidebar(innerWidth >= 1000);
draw();
