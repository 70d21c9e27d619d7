// Elements from plain values.  What comes from the service is somebody's words: it only ever becomes text, never markup.

const SVG = "http://www.w3.org/2000/svg";

function made(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** An HTML element; attributes that are null or false are left out, `onclick` and the like are listeners. */
export function h(name, attributes, ...children) {
  return made(document.createElement(name), attributes, children);
}

/** An SVG element. */
export function s(name, attributes, ...children) {
  return made(document.createElementNS(SVG, name), attributes, children);
}

export function byId(id) {
  return document.getElementById(id);
}

/** Say something to who does not see the page. */
export function announce(text) {
  byId("announcer").textContent = text;
}

/** A sentence where something would be, with the way to get it. */
export function empty(title, text, ...ways) {
  return h("div", { class: "empty" }, h("p", { class: "strong" }, title), h("p", null, text), h("div", { class: "line" }, ways));
}

/** What went wrong, with a button to try again where that may help. */
export function problemBox(problem, retry) {
  return h(
    "div",
    { class: "problem", role: "alert" },
    h("p", { class: "strong" }, problem.title),
    h("p", null, problem.message),
    retry && problem.mayPass ? h("button", { type: "button", onclick: retry }, "Try again") : null,
  );
}

/** What has the focus in a place that is to be drawn anew, told by its id or its words; null where nothing there has it. */
export function focusedIn(place) {
  const element = document.activeElement;
  return element && element !== place && place.contains(element) ? { id: element.id, words: wordsOf(element) } : null;
}

/** The focus back to what has the same id or words now, else to the panel, so that the keyboard does not begin at the top again. */
export function refocus(place, focused) {
  if (focused === null || document.activeElement !== document.body) return;
  const all = [...place.querySelectorAll("button, a, input, select, summary, [tabindex]")];
  const same = all.find((one) => (focused.id ? one.id === focused.id : wordsOf(one) === focused.words));
  (same ?? place.closest("[tabindex]"))?.focus({ preventScroll: true });
}

function wordsOf(element) {
  return element.getAttribute("aria-label") ?? element.textContent;
}

const turns = new WeakMap();

/**
 * Fill `place` with what `load` promises: "Loading" at first, then what `draw` makes of it, or the problem with a way out.
 * Of several calls for one place only the last one draws.
 */
export async function present(place, load, draw) {
  const turn = (turns.get(place) ?? 0) + 1;
  turns.set(place, turn);
  place.setAttribute("aria-busy", "true");
  if (!place.hasChildNodes()) place.append(h("p", { class: "quiet" }, "Loading…"));
  let children;
  try {
    children = [draw(await load())];
  } catch (error) {
    if (error.name !== "Problem") throw error;
    children = [problemBox(error, () => present(place, load, draw))];
  } finally {
    if (turns.get(place) === turn) place.removeAttribute("aria-busy");
  }
  if (turns.get(place) !== turn) return;
  const focused = focusedIn(place);
  place.replaceChildren(...children.flat(Infinity).filter(Boolean));
  refocus(place, focused);
}

/** A table whose columns are {title, of(row)} and of a kind: head, number, words (a sentence), or none of them; wide ones can be scrolled, also by keyboard. */
export function table(caption, columns, rows, { isCaptionSeen = true } = {}) {
  return h(
    "div",
    { class: "scroll", role: "region", "aria-label": caption, tabindex: "0" },
    h(
      "table",
      null,
      h("caption", { class: isCaptionSeen ? null : "unseen" }, caption),
      h("thead", null, h("tr", null, columns.map((column) => h("th", { scope: "col", class: column.number && "number" }, column.title)))),
      h(
        "tbody",
        null,
        rows.map((row) =>
          h(
            "tr",
            { class: row.mark ?? null },
            columns.map((column) =>
              column.head
                ? h("th", { scope: "row" }, column.of(row))
                : h("td", { class: column.number ? "number" : column.words ? "words" : null }, column.of(row)),
            ),
          ),
        ),
      ),
    ),
  );
}

/** Facts as a list of names and values; those without a value are left out. */
export function facts(pairs) {
  const known = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return h("dl", { class: "facts" }, known.map(([name, value]) => h("div", null, h("dt", null, name), h("dd", null, value))));
}

/** Copy a text; a page that came over plain HTTP from another machine may not use the clipboard's newer way. */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const field = h("textarea", { class: "unseen", readonly: true, "aria-hidden": "true" });
    field.value = text;
    document.body.append(field);
    field.select();
    const done = document.execCommand("copy");
    field.remove();
    return done;
  }
}
