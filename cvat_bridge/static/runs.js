/*
 * The runs of a task or project. While the view is visible and a run is unfinished, their state is polled every few
 * seconds, less often after failures.
 */

import { Failure, ask, subjectQuery } from './api.js';
import { h, put, setText } from './dom.js';
import { lastingFailureBox, waiting } from './notices.js';
import { finished, runCard } from './run_card.js';

const EVERY_MS = 5_000;
const SLOWEST_MS = 60_000;
const AFTERWARDS_MS = 20_000;
const NO_LONGER = new Set([401, 403, 404]);
const NO_SUCH_RUN = new Set([403, 404, 422]); // 422: the run's name in the link is invalid

/** `say(text)` announces a text to screen readers. */
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

  /** One request at a time; further calls share the running one. */
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

  /** Load the linked run if it is not in the list: a link may name any run. */
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
      // Moving an element removes its focus, so move it only if the order has changed.
      if (list.children[index] !== card.node) list.insertBefore(card.node, list.children[index] ?? null);
    });
  }

  /** After an action, poll again: a running request may be older, and the cluster needs a moment to show the result. */
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
    /** Whether the view is visible. */
    setVisible(now) {
      visible = now;
      if (now && !cards.size && !list.children.length) put(list, waiting('Reading the runs…'));
      look();
    },
    /** Show a run that was just started. `said`: a remark about it. */
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
