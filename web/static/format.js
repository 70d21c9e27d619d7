// Numbers, times and keys as people read them.

const NOTES = ["C", "D♭", "D", "E♭", "E", "F", "F♯", "G", "A♭", "A", "B♭", "B"];

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

export function count(value) {
  return whole.format(value);
}

/** "1 song", "2 songs" */
export function counted(n, noun) {
  return `${count(n)} ${noun}${n === 1 ? "" : "s"}`;
}

export function fixed(value, digits) {
  return value === null || value === undefined || Number.isNaN(value) ? "–" : value.toFixed(digits);
}

/** A text with a capital at its beginning and a full stop at its end. */
export function sentence(text) {
  return `${text[0].toUpperCase()}${text.slice(1)}${/[.!?:]$/.test(text) ? "" : "."}`;
}

export function percent(share, digits = 0) {
  return share === null || share === undefined ? "–" : `${(100 * share).toFixed(digits)} %`;
}

export function span(seconds) {
  if (seconds === null || seconds === undefined) return null;
  if (seconds < 1) return "under a second";
  if (seconds < 90) return `${whole.format(seconds)} s`;
  if (seconds < 5400) return `${whole.format(seconds / 60)} min`;
  if (seconds < 172_800) return `${(seconds / 3600).toFixed(1)} h`;
  return `${whole.format(seconds / 86_400)} days`;
}

export function when(iso) {
  if (!iso) return null;
  return new Date(iso).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });
}

function rootOf(features) {
  const { key, mode } = features ?? {};
  return Number.isInteger(key) && key >= 0 && key <= 11 && (mode === 0 || mode === 1) ? [key, mode] : null;
}

/** "A minor", or null where the key is not known. */
export function keyName(features) {
  const known = rootOf(features);
  return known && `${NOTES[known[0]]} ${known[1] === 1 ? "major" : "minor"}`;
}

/** The place on the Camelot wheel as {number, letter}, or null: neighbours on it go together. */
export function camelot(features) {
  const known = rootOf(features);
  if (!known) return null;
  const [key, mode] = known;
  return { number: (((key + (mode === 1 ? 0 : 3)) * 7 + 7) % 12) + 1, letter: mode === 1 ? "B" : "A" };
}

export function code(place) {
  return place ? `${place.number}${place.letter}` : "–";
}

/** Whether two places on the wheel go together: the same, one step around it, or the other letter of one number. */
export function goTogether(one, other) {
  const around = Math.abs(one.number - other.number);
  return Math.min(around, 12 - around) + (one.letter === other.letter ? 0 : 1) <= 1;
}
