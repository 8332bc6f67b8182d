/* One run in the list. Created once and then updated in place, to keep the focus. */

import { Failure, ask } from './api.js';
import { subjectName } from './data.js';
import { count, duration, freshId, h, link, moment, number, pageAddress, put, setText, show } from './dom.js';

export const STATES = {
  pending: 'Waiting',
  running: 'Running',
  succeeded: 'Done',
  failed: 'Failed',
  stopped: 'Stopped',
  skipped: 'Skipped',
};

/** Whether the run has ended. */
export function finished(run) {
  return ['succeeded', 'failed', 'stopped'].includes(run.state);
}

/** The card of a run. `changed` is called after the user stopped, reran or pinned it. */
export function runCard(name, { changed, say }) {
  const parts = makeParts(name);
  const controls = makeControls(name, { changed, say, failure: parts.failure });
  const { head, about, bar, now, message, results, meaning, poor, warnings, failure, steps } = parts;
  put(parts.node, head, about, bar, now, message, results, meaning, poor, warnings, failure, controls.node, steps);
  let state = null;

  function update(run) {
    setText(parts.title, run.title || run.template || run.name);
    setText(parts.chip, STATES[run.state] ?? run.state);
    parts.chip.className = `chip ${run.state}`;
    updateFacts(parts, run);
    setText(parts.about, aboutRun(run));
    show(parts.about, Boolean(parts.about.textContent));
    updateProgress(parts, run);
    setText(parts.message, run.state === 'failed' ? run.message || 'The run failed without saying why.' : '');
    show(parts.message, run.state === 'failed');
    const threshold = run.model?.threshold ? { threshold: run.model.threshold } : {};
    updateResults(parts.results, { ...run.results, ...threshold });
    setText(parts.poor, run.model?.warning ? `${run.model.warning}.` : '');
    show(parts.poor, Boolean(parts.poor.textContent));
    show(parts.meaning, 'ap' in (run.results ?? {}));
    updateWarnings(parts.warnings, run.warnings);
    updateSteps(parts, run.steps ?? []);
    controls.update(run);
    if (state !== null && state !== run.state) say(`${run.name}: ${STATES[run.state] ?? run.state}`);
    state = run.state;
  }

  return { node: parts.node, name, update, focus: () => parts.heading.focus(), open: () => (parts.steps.open = true) };
}

function makeParts(name) {
  const id = freshId('run');
  const title = h('span', {});
  const heading = h('h3', { id, tabindex: '-1' }, title, ' ', h('code', { class: 'run-name' }, name));
  const chip = h('span', { class: 'chip' });
  const facts = h('p', { class: 'muted facts' });
  const list = h('ol', { class: 'steps' });
  return {
    heading,
    title,
    chip,
    facts,
    list,
    head: h('div', { class: 'run-head' }, h('div', {}, heading, facts), chip),
    bar: h('progress', { max: '1', 'aria-label': `Progress of ${name}` }),
    about: h('p', { class: 'muted about', hidden: true }),
    now: h('p', { class: 'now' }),
    message: h('p', { class: 'note error', hidden: true }),
    results: h('dl', { class: 'figures results' }),
    meaning: h('p', { class: 'muted', hidden: true },
      'AP measures how well the predictions match the annotations, from 0 to 1, which is perfect.'),
    poor: h('p', { class: 'note warning', hidden: true }),
    warnings: h('div', { class: 'note warning', hidden: true }),
    failure: h('div', { role: 'alert' }),
    steps: h('details', { class: 'steps-box' }, h('summary', {}, 'Steps'), list),
    node: h('article', { class: 'run', 'aria-labelledby': id }),
  };
}

function updateFacts(parts, run) {
  const key = [run.user, run.created, run.started, run.finished].join('|');
  if (parts.facts.dataset.key === key) return;
  parts.facts.dataset.key = key;
  const took = duration(run.started, run.finished);
  const pieces = [run.user ? `by ${run.user}` : null, moment(run.started ?? run.created), took ? `took ${took}` : null];
  parts.facts.replaceChildren();
  pieces.filter(Boolean).forEach((piece, index) => put(parts.facts, index ? ' · ' : null, piece));
}

/** `Task #11 · Model: tiny · Minutes: 0.5`. */
function aboutRun(run) {
  const chosen = (run.settings ?? []).map((one) => `${one.title}: ${one.value}`);
  return [run.subject ? subjectName(run.subject) : null, ...chosen].filter(Boolean).join(' · ');
}

function updateProgress(parts, run) {
  show(parts.bar, !finished(run));
  if (typeof run.progress === 'number') {
    const value = Math.min(1, Math.max(0, run.progress));
    if (parts.bar.value !== value || !parts.bar.hasAttribute('value')) parts.bar.value = value;
  } else {
    parts.bar.removeAttribute('value');
  }
  const steps = run.steps ?? [];
  const step = steps.find((one) => one.state === 'running') ?? steps.find((one) => one.state === 'pending' && one.message);
  const measured = typeof run.ap?.value === 'number';
  const ap = measured ? `AP ${run.ap.value.toFixed(3)} so far, after step ${number(run.ap.step)}` : null;
  const percent = typeof run.progress === 'number' ? `${Math.round(run.progress * 100)} %` : null;
  const waiting = step?.state === 'pending' ? `: ${step.message}` : '';
  const current = step ? [step.title || step.name, step.progress].filter(Boolean).join(' ') + waiting : null;
  const waits = run.state === 'pending' ? run.message || 'Waiting to start' : null;
  const said = run.state === 'running' && run.message ? run.message : null;
  setText(parts.now, finished(run) ? '' : [waits, current, percent, ap, said].filter(Boolean).join(' · '));
  show(parts.now, Boolean(parts.now.textContent));
}

function updateResults(list, results) {
  const entries = Object.entries(results).filter(([name]) => !FOR_OPERATORS.has(name));
  const key = JSON.stringify(entries);
  if (list.dataset.key === key) return;
  list.dataset.key = key;
  list.replaceChildren(...entries.map(([name, value]) =>
    h('div', {}, h('dt', {}, resultName(name)), h('dd', {}, resultValue(name, value)))));
  show(list, entries.length > 0);
}

const MOST_WARNINGS = 5;

/** What `prepare` found in the data: the most important warnings, and how many more there are. */
function updateWarnings(box, warnings) {
  const first = (warnings?.first ?? []).slice(0, MOST_WARNINGS);
  const key = JSON.stringify([first, warnings?.total]);
  if (box.dataset.key === key) return;
  box.dataset.key = key;
  show(box, first.length > 0);
  if (!first.length) return;
  const left = (warnings.total ?? 0) - first.length;
  box.replaceChildren(
    h('p', { class: 'note-title' }, `Look at the data: ${count(warnings.total, 'warning', 'warnings')}`),
    h('ol', {}, first.map((text) => h('li', {}, text))),
    ...(left > 0 ? [h('p', {}, `${count(left, 'more is', 'more are')} in the report of the prepared set.`)] : []));
}

/** Hidden from annotators; Argo's page shows it. */
const FOR_OPERATORS = new Set(['prepared-set']);

function resultValue(name, value) {
  if (!/^ap/i.test(name) || !Number.isFinite(Number(value))) return String(value);
  return Number(value) < 0 ? 'not measurable: no boxes' : Number(value).toFixed(3);
}

/** `ap50` as AP50, `images` as Images. */
function resultName(name) {
  return /^ap/i.test(name) ? name.toUpperCase() : name.slice(0, 1).toUpperCase() + name.slice(1);
}

function updateSteps(parts, steps) {
  const key = JSON.stringify(steps);
  if (parts.list.dataset.key === key) return;
  parts.list.dataset.key = key;
  parts.list.replaceChildren(...steps.map((step) => {
    const state = [STATES[step.state] ?? step.state, step.progress].filter(Boolean).join(' · ');
    return h('li', { class: `step ${step.state}` },
      h('span', { class: 'step-title' }, step.title || step.name),
      h('span', { class: 'step-state' }, state),
      step.message ? h('span', { class: 'step-message' }, step.message) : null);
  }));
  show(parts.steps, steps.length > 0);
}

const DONE = {
  stop: (name) => `${name} is being stopped`,
  rerun: (name, answer) => `${name} was started again as ${answer.name}`,
  'use-model': (name, answer) => `Automatic annotation of ${placeOf(answer)} takes the model of ${name} now`,
  'release-model': (name, answer) => `Automatic annotation of ${placeOf(answer)} takes its newest model again`,
};

function placeOf(run) {
  return run.model?.place || 'this task';
}

function button(text, click, look = 'button') {
  return h('button', { type: 'button', class: look, on: { click } }, text);
}

/** The actions that the user may perform on a run. */
function makeControls(name, { changed, say, failure }) {
  const address = `runs/${encodeURIComponent(name)}`;
  const links = h('span', { class: 'run-links' });
  const use = button('Use this model', () => act('use-model', use));
  const used = h('span', { class: 'tag good', tabindex: '-1' });
  const release = button('Use the newest instead', () => act('release-model', release));
  const stop = button('Stop', () => confirm(true));
  const rerun = button('Run again', () => act('rerun', rerun));
  const really = button('Stop it', () => act('stop', really), 'button danger');
  const keep = button('Let it run', () => confirm(false));
  const questionId = freshId('question');
  const question = h('div', { class: 'question', role: 'group', 'aria-labelledby': questionId, hidden: true },
    h('span', { id: questionId }, 'Stop this run? What it has not saved is lost.'), really, keep);
  question.addEventListener('keydown', (event) => {
    if (event.key !== 'Escape') return;
    event.preventDefault();
    event.stopPropagation();
    confirm(false);
  });
  const node = h('div', { class: 'run-actions' }, links, use, used, release, rerun, stop, question);
  let may = {};

  function confirm(asking) {
    show(question, asking);
    show(stop, !asking && Boolean(may.stop));
    if (asking) keep.focus();
    else if (!stop.hidden) stop.focus();
  }

  async function act(verb, pressed) {
    failure.replaceChildren();
    pressed.disabled = true;
    try {
      const answer = await ask(`${address}/${verb}`, { method: 'POST', body: {} });
      if (verb === 'stop') confirm(false);
      say(DONE[verb](name, answer));
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      failure.replaceChildren(h('p', { class: 'note error' }, error.message));
    }
    pressed.disabled = false;
    await changed();
    if (verb === 'use-model' && !used.hidden) used.focus();
    if (verb === 'release-model' && !use.hidden) use.focus();
  }

  function update(run) {
    may = run.may ?? {};
    const offered = [['Report', run.links?.report], ['Open in Argo', run.links?.argo]];
    const addresses = offered.filter(([, href]) => pageAddress(href));
    const key = JSON.stringify(addresses);
    if (links.dataset.key !== key) {
      links.dataset.key = key;
      links.replaceChildren(...addresses.map(([text, href]) => link(text, href, { 'aria-label': `${text}: ${name}` })));
    }
    show(links, addresses.length > 0);
    setText(use, `Use this model for ${placeOf(run)}`);
    use.title = `What Automatic annotation of ${placeOf(run)} offers as the chosen model`;
    setText(used, `In use for ${placeOf(run)}`);
    show(use, Boolean(may.use && run.model && !run.model.used));
    show(release, Boolean(may.release));
    show(used, Boolean(run.model?.used));
    show(rerun, Boolean(may.rerun));
    if (!may.stop) show(question, false);
    show(stop, Boolean(may.stop) && question.hidden);
    show(node, [...node.children].some((child) => !child.hidden));
  }

  return { node, update };
}
