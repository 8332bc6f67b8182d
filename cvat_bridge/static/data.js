/* Preview of a run's data: images, boxes per class, unfinished tasks, and advice. */

import { count, h, link, number } from './dom.js';

const FEW_CLASSES = 12;

/** The panel for `subject` in the form's response. Advice about training is shown only if the run trains. */
export function dataPanel(subject, trains = true) {
  const classes = subject.classes ?? [];
  return h('section', { class: 'data', 'aria-label': 'Data for this run' },
    h('h3', {}, 'Data for this run'),
    h('dl', { class: 'figures' },
      figure('Images', number(subject.images ?? 0)),
      figure('Boxes', typeof subject.boxes === 'number' ? number(subject.boxes) : 'not known yet'),
      figure('Classes', number(classes.length))),
    whoDrew(subject),
    classes.length ? classTable(classes, trains) : null,
    trains ? [unfinished(subject.unfinished ?? []), (subject.notes ?? []).map(note)] : null);
}

/** How many boxes people drew or changed, and how many are as a model left them. */
function whoDrew({ boxes, untouched }) {
  if (!boxes || !untouched) return null;
  return h('p', { class: 'muted' },
    `${number(boxes - untouched)} drawn or changed by people, ${number(untouched)} untouched from a model`);
}

function figure(name, value) {
  return h('div', {}, h('dt', {}, name), h('dd', {}, value));
}

function classTable(classes, trains) {
  const most = Math.max(1, ...classes.map((one) => one.boxes ?? 0));
  const table = h('table', { class: 'classes' },
    h('caption', { class: 'hidden-visually' }, 'Boxes per class'),
    h('thead', {}, h('tr', {}, h('th', { scope: 'col' }, 'Class'), h('th', { scope: 'col', class: 'count' }, 'Boxes'))),
    h('tbody', {}, classes.map((one) => classRow(one, most, trains && one.warning))));
  if (classes.length <= FEW_CLASSES) return table;
  return h('div', { class: 'scrolls', tabindex: '0', role: 'group', 'aria-label': 'Boxes per class' }, table);
}

function classRow(one, most, warning) {
  const colour = /^#[0-9a-f]{3,8}$/i.test(one.color ?? '') ? one.color : '#8c8c8c';
  const swatch = h('span', { class: 'swatch', 'aria-hidden': 'true' });
  swatch.style.backgroundColor = colour;
  const bar = h('span', { class: 'bar', 'aria-hidden': 'true' });
  bar.style.inlineSize = `${((one.boxes ?? 0) / most) * 100}%`;
  bar.hidden = !one.boxes;
  bar.style.backgroundColor = colour;
  return h('tr', { class: warning ? 'few' : null },
    h('th', { scope: 'row' },
      h('span', { class: 'class-name' }, swatch, h('bdi', {}, one.name)),
      h('span', { class: 'track', 'aria-hidden': 'true' }, bar),
      warning ? h('span', { class: 'class-warning' }, warning) : null),
    h('td', { class: 'count' }, typeof one.boxes === 'number' ? number(one.boxes) : '–'));
}

function unfinished(tasks) {
  if (!tasks.length) return null;
  return h('div', { class: 'note warning' },
    h('p', { class: 'note-title' },
      tasks.length === 1 ? 'A task is not finished' : `${number(tasks.length)} tasks are not finished`),
    h('ul', {}, tasks.map((task) =>
      h('li', {}, h('bdi', {}, task.name),
        ` (#${task.id}): ${number(task.completed)} of ${count(task.jobs, 'job', 'jobs')} done`))),
    h('p', {}, 'The run takes what is annotated at the moment it starts. Images without boxes count as images with '
      + 'nothing on them.'));
}

function note(one) {
  return h('div', { class: `note ${one.level === 'warning' ? 'warning' : 'info'}` },
    h('p', { class: 'note-title' }, one.text),
    one.advice ? h('p', {}, one.advice) : null);
}

/** The subject's name, and its title as a link to CVAT: `Task #8 Cells`. */
export function subjectLine(subject) {
  return h('span', {}, `${subjectName(subject)} `, subject.title ? link(subject.title, subject.url) : null);
}

/** `Task #8`, `Tasks #8, #9`, `Project #3`. */
export function subjectName({ kind, ids }) {
  const name = kind === 'project' ? 'Project' : ids.length > 1 ? 'Tasks' : 'Task';
  const all = ids.map((id) => `#${id}`);
  const shown = all.length > 6 ? `${all.slice(0, 5).join(', ')} and ${all.length - 5} more` : all.join(', ');
  return `${name} ${shown}`;
}
