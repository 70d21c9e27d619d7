// A field that finds while one types, after the combobox pattern of the ARIA Authoring Practices (list autocomplete).

import { h } from "./dom.js";

const PAUSE_MS = 120; // of typing, before it is asked, where nothing else is said

/**
 * Turn an input with its listbox and note into one.
 *
 * `find(text, signal)` promises {options: [{label, detail, value}], note}; `pick(value)` takes what was chosen.
 * `pauseMs` is longer where asking is dear.  With `isOpenWhenEmpty` the field also offers something before a word was typed.
 */
export function combobox(input, { find, pick, isOpenWhenEmpty = false, pauseMs = PAUSE_MS }) {
  const listbox = input.parentElement.querySelector("[role=listbox]");
  const note = input.parentElement.querySelector(".note");
  let options = [];
  let active = -1;
  let answered = null; // the text whose options are shown
  let timer = 0;
  let asking = null;

  function close() {
    clearTimeout(timer);
    asking?.abort();
    listbox.hidden = true;
    input.setAttribute("aria-expanded", "false");
    activate(-1);
  }

  function activate(place) {
    active = place;
    [...listbox.children].forEach((item, n) => item.setAttribute("aria-selected", String(n === place)));
    if (place < 0) input.removeAttribute("aria-activedescendant");
    else {
      input.setAttribute("aria-activedescendant", listbox.children[place].id);
      listbox.children[place].scrollIntoView({ block: "nearest" });
    }
  }

  function show(found) {
    options = found.options;
    listbox.replaceChildren(
      ...options.map((option, n) =>
        h(
          "li",
          { role: "option", id: `${listbox.id}-${n}`, "aria-selected": "false", onclick: () => choose(n) },
          h("span", { class: "strong" }, option.label),
          option.detail ? [" ", h("span", { class: "quiet" }, option.detail)] : null,
        ),
      ),
    );
    listbox.hidden = !options.length;
    input.setAttribute("aria-expanded", String(options.length > 0));
    activate(-1);
    note.textContent = found.note ?? "";
  }

  function choose(place) {
    const { value } = options[place];
    input.value = "";
    note.textContent = "";
    close();
    input.focus();
    pick(value);
  }

  async function look() {
    const text = input.value.trim();
    clearTimeout(timer);
    asking?.abort();
    if (!text && !isOpenWhenEmpty) return show({ options: [] });
    const mine = (asking = new AbortController());
    try {
      const found = await find(text, mine.signal);
      if (mine.signal.aborted) return;
      answered = text;
      show(found);
    } catch (error) {
      if (error.name === "AbortError") return;
      if (error.name !== "Problem") throw error;
      if (!mine.signal.aborted) show({ options: [], note: `${error.title}: ${error.message}` });
    }
  }

  input.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(look, pauseMs);
  });
  input.addEventListener("focus", () => {
    if (isOpenWhenEmpty && listbox.hidden) look();
  });
  input.addEventListener("blur", close);
  /** Take what is marked, else the first one, also of what was typed a moment ago and is not found yet. */
  async function take() {
    const text = input.value;
    if (text.trim() && (listbox.hidden || answered !== text.trim())) await look();
    const isMeant = active >= 0 || text.trim(); // nothing is taken that was neither typed nor marked
    const isFound = !listbox.hidden && options.length && answered === text.trim();
    if (isMeant && isFound && input.value === text) choose(Math.max(active, 0));
  }

  input.addEventListener("keydown", (event) => {
    if (event.isComposing) return; // Enter ends a word of an input method
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      if (listbox.hidden) look();
      else {
        const step = event.key === "ArrowDown" ? 1 : -1;
        activate((active + step + options.length + (active < 0 && step < 0 ? 1 : 0)) % options.length);
      }
    } else if (event.key === "Enter") {
      event.preventDefault();
      take();
    } else if (event.key === "Escape" && !listbox.hidden) {
      event.stopPropagation();
      close();
    }
  });
  listbox.addEventListener("pointerdown", (event) => event.preventDefault()); // the field keeps the focus
}
