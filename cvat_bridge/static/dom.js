/* Making elements, and showing what the server said: always as text, never as HTML but for a few tags. */

let made = 0;

/** An id that no other element has. */
export function freshId(stem) {
  made += 1;
  return `tb-${stem.replace(/[^A-Za-z0-9-]/g, '-')}-${made}`;
}

/**
 * An element. `attributes`: `class`, `on` (event → listener), else attributes; true sets an empty one, null and
 * false leave it out. Children that are strings become text; null ones are left out.
 */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === 'on') Object.entries(value).forEach(([event, listener]) => element.addEventListener(event, listener));
    else element.setAttribute(name, value === true ? '' : String(value));
  }
  put(element, ...children);
  return element;
}

/** Append children as `h` does. */
export function put(element, ...children) {
  const left = [null, undefined, false];
  element.append(...children.flat(Infinity).filter((child) => !left.includes(child)));
}

/** Replace what an element shows by one text, without touching it where it is the same. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Show or hide. */
export function show(element, visible) {
  element.hidden = !visible;
}

/** The address when it leads to a page; null for what is no web address. */
export function pageAddress(text) {
  if (typeof text !== 'string' || !text) return null;
  try {
    const address = new URL(text, location.href);
    return ['http:', 'https:'].includes(address.protocol) ? address.href : null;
  } catch {
    return null;
  }
}

/** A link to another page in a tab of its own; plain text where the address is none. */
export function link(text, address, attributes = {}) {
  const href = pageAddress(address);
  if (!href) return h('span', {}, text);
  return h('a', { href, target: '_blank', rel: 'noopener noreferrer', ...attributes }, text);
}

const KEPT = new Set(['P', 'UL', 'OL', 'LI', 'STRONG', 'EM', 'B', 'I', 'CODE', 'PRE', 'BR']);
const DROPPED = new Set(['SCRIPT', 'STYLE', 'TEMPLATE', 'IFRAME', 'OBJECT', 'EMBED', 'SVG', 'MATH', 'NOSCRIPT']);

/** Help texts: paragraphs, lists, emphasis, code and links; of every other tag only the text stays. */
export function simpleHtml(html) {
  const fragment = document.createDocumentFragment();
  if (typeof html === 'string' && html) {
    copySimple(new DOMParser().parseFromString(html, 'text/html').body, fragment);
  }
  return fragment;
}

function copySimple(from, to) {
  for (const node of from.childNodes) {
    if (node.nodeType === Node.TEXT_NODE) {
      to.append(node.data);
    } else if (node.nodeType === Node.ELEMENT_NODE && !DROPPED.has(node.tagName.toUpperCase())) {
      let target = to;
      if (KEPT.has(node.tagName)) target = h(node.tagName.toLowerCase());
      else if (node.tagName === 'A') target = link('', node.getAttribute('href'));
      if (target !== to) to.append(target);
      copySimple(node, target);
    }
  }
}

/** A number as the reader writes it. */
export function number(value) {
  return new Intl.NumberFormat(undefined, { maximumSignificantDigits: 15 }).format(value);
}

/** `1 box`, `2 boxes`. */
export function count(value, one, many) {
  return `${number(value)} ${value === 1 ? one : many}`;
}

/** A moment in the reader's own words; null where the text is no time. */
export function moment(text) {
  const date = text ? new Date(text) : null;
  if (!date || Number.isNaN(date.getTime())) return null;
  const shown = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'short' }).format(date);
  return h('time', { datetime: date.toISOString() }, shown);
}

/** How long from one moment to another, such as `1 h 5 min`; empty where one is unknown. */
export function duration(from, to) {
  const seconds = Math.round((new Date(to) - new Date(from)) / 1000);
  if (!from || !to || !Number.isFinite(seconds) || seconds < 0) return '';
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}
