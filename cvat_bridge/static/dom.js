/* Create elements. Texts from the server are shown as text, except help, where a few HTML tags are allowed. */

let made = 0;

/** A unique element id. */
export function freshId(stem) {
  made += 1;
  return `tb-${stem.replace(/[^A-Za-z0-9-]/g, '-')}-${made}`;
}

/**
 * Create an element. `attributes`: attributes, and `on` (event → listener). true sets an empty attribute, null and
 * false omit it. Strings in `children` become text; null is omitted.
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

/** Set an element's text, if it differs. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Show or hide. */
export function show(element, visible) {
  element.hidden = !visible;
}

/** The URL if it is a valid web address, else null. */
export function pageAddress(text) {
  if (typeof text !== 'string' || !text) return null;
  try {
    const address = new URL(text, location.href);
    return ['http:', 'https:'].includes(address.protocol) ? address.href : null;
  } catch {
    return null;
  }
}

/** A link that opens in a new tab; plain text if the address is invalid. */
export function link(text, address, attributes = {}) {
  const href = pageAddress(address);
  if (!href) return h('span', {}, text);
  return h('a', { href, target: '_blank', rel: 'noopener noreferrer', ...attributes }, text);
}

const KEPT = new Set(['P', 'UL', 'OL', 'LI', 'STRONG', 'EM', 'B', 'I', 'CODE', 'PRE', 'BR']);
const DROPPED = new Set(['SCRIPT', 'STYLE', 'TEMPLATE', 'IFRAME', 'OBJECT', 'EMBED', 'SVG', 'MATH', 'NOSCRIPT']);

/** Render help: paragraphs, lists, emphasis, code and links. Other tags are reduced to their text. */
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

/** A number in the user's locale. */
export function number(value) {
  return new Intl.NumberFormat(undefined, { maximumSignificantDigits: 15 }).format(value);
}

/** `1 box`, `2 boxes`. */
export function count(value, one, many) {
  return `${number(value)} ${value === 1 ? one : many}`;
}

/** A time in the user's locale; null if the text is not a time. */
export function moment(text) {
  const date = text ? new Date(text) : null;
  if (!date || Number.isNaN(date.getTime())) return null;
  const shown = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'short' }).format(date);
  return h('time', { datetime: date.toISOString() }, shown);
}

/** The duration between two times, such as `1 h 5 min`; empty if one is unknown. */
export function duration(from, to) {
  const seconds = Math.round((new Date(to) - new Date(from)) / 1000);
  if (!from || !to || !Number.isFinite(seconds) || seconds < 0) return '';
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}
