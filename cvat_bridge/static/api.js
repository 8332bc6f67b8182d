/* Requests to the bridge. Every failure becomes a sentence that says what to do. */

const API = new URL('../api/', import.meta.url);
const PATIENCE_MS = 30_000;

const SENTENCES = {
  network: 'The server could not be reached. Check the connection and try again.',
  401: 'You are not logged in to CVAT, or your session has ended. Log in, then try again.',
  403: 'CVAT does not show you this, or it does not exist. Ask whoever owns it to give you access.',
  404: 'This does not exist any more, or CVAT does not show it to you.',
  409: 'This cannot be done now. Try again in a moment.',
  413: 'The settings are too long. Shorten them and try again.',
  422: 'Some settings are invalid.',
  429: 'That was too often in a short time. Wait a minute and try again.',
  503: 'CVAT or the cluster does not answer at the moment. Try again in a minute.',
};

/** A failed request. `errors`: the server's `{field, text}`; `login`: the user must log in. */
export class Failure extends Error {
  constructor(sentence, { status = 0, errors = [] } = {}) {
    super(sentence);
    this.name = 'Failure';
    this.status = status;
    this.errors = errors;
    this.login = status === 401;
  }
}

/** Send a request; returns the response's JSON. Throws Failure. */
export async function ask(path, options) {
  return (await answerTo(path, options)).content;
}

/** The same, but returns `{status, content}`. */
export async function answerTo(path, { method = 'GET', body } = {}) {
  const timer = new AbortController();
  const timeout = setTimeout(() => timer.abort(), PATIENCE_MS);
  try {
    const response = await fetch(new URL(path, API), {
      method,
      body: body === undefined ? undefined : JSON.stringify(body),
      headers: {
        Accept: 'application/json',
        ...(method === 'GET' ? {} : { 'Content-Type': 'application/json', 'X-Training-Bridge': '1' }),
      },
      credentials: 'same-origin',
      cache: 'no-store',
      redirect: 'manual',
      signal: timer.signal,
    });
    return await read(response);
  } catch (error) {
    throw error instanceof Failure ? error : new Failure(SENTENCES.network);
  } finally {
    clearTimeout(timeout);
  }
}

async function read(response) {
  // A gateway in front of CVAT redirects users without a login.
  if (response.type === 'opaqueredirect') throw new Failure(SENTENCES[401], { status: 401 });
  const { status } = response;
  let content = null;
  try {
    content = await response.json();
  } catch {
    if (response.ok) throw new Failure(SENTENCES.network);
  }
  if (response.ok) return { status, content };
  const errors = (Array.isArray(content?.errors) ? content.errors : []).filter((one) => typeof one?.text === 'string');
  const general = errors.filter((one) => !one.field).map((one) => one.text);
  const fallback =
    SENTENCES[status] ?? (status >= 500 ? SENTENCES[503] : `The server did not accept this (${status}). Try again.`);
  // For 401, always show our sentence, which says how to log in.
  const sentence = status === 401 ? SENTENCES[401] : general.join(' ') || fallback;
  throw new Failure(sentence, { status, errors });
}

/** `task:8,task:9` or `project:3` as a URL query; null if malformed. */
export function subjectQuery(subject) {
  const parts = String(subject).split(',').map((part) => /^(task|project):([1-9][0-9]{0,9})$/.exec(part));
  if (!parts.every(Boolean)) return null;
  const [, kind] = parts[0];
  if (!parts.every((part) => part[1] === kind) || (kind === 'project' && parts.length > 1)) return null;
  return parts.map(([, , id]) => `${kind}=${id}`).join('&');
}

/** The same as fields of a request body. */
export function subjectFields(subject) {
  const ids = subject.split(',').map((part) => Number(part.split(':')[1]));
  return subject.startsWith('project:') ? { project: ids[0] } : { task: ids };
}

/** A UUID for one click. `randomUUID` exists only on HTTPS pages. */
export function requestId() {
  if (typeof crypto.randomUUID === 'function') return crypto.randomUUID();
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const text = Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
  return [text.slice(0, 8), text.slice(8, 12), text.slice(12, 16), text.slice(16, 20), text.slice(20)].join('-');
}
