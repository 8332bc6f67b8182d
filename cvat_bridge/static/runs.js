/*
 * The runs of a task or project: their state, read again every few seconds while somebody looks and something
 * still goes on, less often while it cannot be read.
 */

import { Failure, ask, subjectQuery } from './api.js';
import { h, put, setText } from './dom.js';
import { lastingFailureBox, waiting } from './notices.js';
import { finished, runCard } from './run_card.js';

const EVERY_MS = 5_000;
const SLOWEST_MS = 60_000;
const AFTERWARDS_MS = 20_000;
const NO_LONGER = new Set([401, 403, 404]);
const NO_SUCH_RUN = new Set([403, 404, 422]); // 422: what the link names is no name of a run

/** `say(text)` tells those who do not see the page. */
export function runsView(subject, { say }) {
  const list = h('div', { class: 'runs' });
  const remark = h('p', { class: 'muted', role: 'status' });
  const failure = lastingFailureBox(() => refresh());
  const notice = h('div', {});
  const again = h('button', { type: 'button', class: 'button', on: { click: () => refresh() } }, 'Refresh');
  const read = h('span', { class: 'muted' });
  const node = h('div', { class: 'runs-view' }, h('div', { class: 'runs-bar' }, again, read), remark, notice, list);
  const cards = new Map();
  let watched = null;
  let visible = false;
  let delay = EVERY_MS;
  let timer = null;
  let reading = null;
  let expecting = 0;

  function schedule(ms) {
    clearTimeout(timer);
    timer = visible && !document.hidden ? setTimeout(refresh, ms) : null;
  }

  /** One reading at a time; whoever asks meanwhile gets the one that is under way. */
  function refresh() {
    clearTimeout(timer);
    reading ??= readRuns().finally(() => (reading = null));
    return reading;
  }

  async function readRuns() {
    try {
      const { runs } = await ask(`runs?${subjectQuery(subject)}`);
      const missing = await watchedElsewhere(runs);
      showRuns(missing ? [missing, ...runs] : runs);
      clearFailure();
      setText(read, `Read at ${new Intl.DateTimeFormat(undefined, { timeStyle: 'medium' }).format(new Date())}`);
      delay = EVERY_MS;
      const goingOn = [missing, ...runs].some((run) => run && !finished(run));
      if (goingOn || Date.now() < expecting) schedule(delay);
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      if (!cards.size) list.replaceChildren();
      const goesOn = !NO_LONGER.has(error.status);
      if (goesOn) delay = Math.min(SLOWEST_MS, delay * 2);
      failure.update(error, goesOn ? `Trying again in ${delay / 1000} seconds.` : '');
      if (!notice.contains(failure.node)) notice.append(failure.node);
      if (goesOn) schedule(delay);
    }
  }

  function clearFailure() {
    const held = failure.node.matches(':focus-within');
    notice.replaceChildren();
    if (held) again.focus();
  }

  /** The run that is watched, when it is not among those of the task: a link may name any. */
  async function watchedElsewhere(runs) {
    if (!watched || runs.some((run) => run.name === watched)) return null;
    try {
      return await ask(`runs/${encodeURIComponent(watched)}`);
    } catch (error) {
      if (!(error instanceof Failure && NO_SUCH_RUN.has(error.status))) throw error;
      setText(remark, `The run ${watched} is not there any more, or CVAT does not show it to you.`);
      watched = null;
      return null;
    }
  }

  function showRuns(runs) {
    if (!runs.length) {
      cards.clear();
      list.replaceChildren(h('p', { class: 'empty' }, 'No runs yet. Start one in the tab “New run”.'));
      return;
    }
    const names = new Set(runs.map((run) => run.name));
    for (const [name, card] of cards) {
      if (!names.has(name)) {
        card.node.remove();
        cards.delete(name);
      }
    }
    if (!cards.size) list.replaceChildren();
    runs.forEach((run, index) => {
      const known = cards.has(run.name);
      const card = cards.get(run.name) ?? runCard(run.name, { changed: refreshSoon, say });
      cards.set(run.name, card);
      card.update(run);
      if (!known && (run.name === watched || runs.length === 1)) card.open();
      card.node.classList.toggle('watched', run.name === watched);
      // Moving an element takes the keyboard from it: only where the order is another.
      if (list.children[index] !== card.node) list.insertBefore(card.node, list.children[index] ?? null);
    });
  }

  /** After an action: what is being read may be older than it, and the cluster takes a while to show it. */
  async function refreshSoon() {
    expecting = Date.now() + AFTERWARDS_MS;
    await reading;
    await refresh();
  }

  function look() {
    if (visible && !document.hidden) refresh();
    else clearTimeout(timer);
  }
  document.addEventListener('visibilitychange', look);

  return {
    node,
    /** The view is in sight, or no longer. */
    setVisible(now) {
      visible = now;
      if (now && !cards.size && !list.children.length) put(list, waiting('Reading the runs…'));
      look();
    },
    /** Show a run that was started here; `said`: a remark about it. */
    async watch(name, said) {
      watched = name;
      setText(remark, said);
      await refreshSoon();
      cards.get(name)?.focus();
    },
    setWatched(name) {
      watched = name;
    },
    stop() {
      visible = false;
      clearTimeout(timer);
      document.removeEventListener('visibilitychange', look);
    },
  };
}
