/* One setting of the form: label, help, control and error. */

import { bounds, problem } from './checks.js';
import { freshId, h, put, setText, show, simpleHtml } from './dom.js';

const MANY_CHOICES = 8;
const OTHER = '\u0000other';
const ROOM = { true: ['Room now', 'good'], false: ['Full now: the run waits', 'wait'] };

/** Create the setting. `changed` is called after each change by the user. */
export function makeField(field, initial, changed) {
  const ids = { control: freshId(field.name), help: freshId('help'), error: freshId('error') };
  const help = helpOf(field, ids.help);
  const error = h('p', { class: 'field-error', id: ids.error, hidden: true });
  const describedBy = help ? ids.help : null;
  const more = (choice) => choice.detail || typeof choice.available === 'boolean';
  const asRadios = !isLong(field) && field.choices?.some(more);
  const make = asRadios ? radios : field.choices?.length ? select : textControl;
  const mistake = () => control.mistake?.() ?? problem(field, control.value());
  const control = make(field, ids, initial, () => {
    // A shown error disappears once it is fixed; a new error appears only when the field loses the focus.
    if (!error.hidden) showProblem(mistake());
    changed();
  });
  control.describe(describedBy);

  const optional = field.required ? null : h('span', { class: 'optional' }, 'optional');
  const node = asRadios
    ? h('fieldset', { class: 'field' },
        h('legend', { class: 'label' }, field.title, ' ', optional), help, control.node, error)
    : h('div', { class: 'field' },
        h('label', { class: 'label', for: ids.control }, field.title, ' ', optional), help, control.node, control.more,
        error);
  node.addEventListener('change', () => showProblem(mistake()));

  function showProblem(sentence) {
    setText(error, sentence ?? '');
    show(error, Boolean(sentence));
    node.classList.toggle('wrong', Boolean(sentence));
    control.markWrong(Boolean(sentence));
    control.describe([describedBy, sentence ? ids.error : null].filter(Boolean).join(' ') || null);
  }

  return {
    node,
    field,
    value: control.value,
    check: mistake,
    showProblem,
    focus: control.focus,
  };
}

/** Whether the choices are shown as a list to open: they have headings, or another value may be typed. */
function isLong(field) {
  return Boolean(field.other || field.choices?.some((choice) => choice.group));
}

function helpOf(field, id) {
  const range = ['integer', 'number'].includes(field.type) ? bounds(field) : '';
  if (!field.help_html && !range) return null;
  const help = h('div', { class: 'help', id });
  help.append(simpleHtml(field.help_html));
  if (range) put(help, h('p', { class: 'bounds' }, `${range[0].toUpperCase()}${range.slice(1)}.`));
  return help;
}

function setOrRemove(element, name, value) {
  if (value) element.setAttribute(name, value);
  else element.removeAttribute(name);
}

/** The interface of a control, for controls with one element. */
function oneElement(element) {
  return {
    node: element,
    value: () => element.value,
    focus: () => element.focus(),
    describe: (ids) => setOrRemove(element, 'aria-describedby', ids),
    markWrong: (wrong) => setOrRemove(element, 'aria-invalid', wrong && 'true'),
  };
}

function textControl(field, ids, initial, changed) {
  const attributes = {
    id: ids.control,
    name: field.name,
    class: 'input',
    autocomplete: 'off',
    autocapitalize: 'none',
    spellcheck: 'false',
    'aria-required': field.required ? 'true' : null,
    on: { input: changed },
  };
  const numeric = { integer: 'numeric', number: 'decimal' }[field.type];
  const severalLines = field.type === 'locations' || field.type === 'text';
  const element = severalLines
    ? h('textarea', { ...attributes, rows: field.type === 'locations' ? 3 : 2 })
    // Not type=number: scripts cannot read invalid text from it.
    : h('input', { ...attributes, type: 'text', inputmode: numeric ?? null, class: numeric ? 'input short' : 'input' });
  element.value = initial;
  return oneElement(element);
}

/** The choices, with a first one that leaves the setting empty or asks for a choice. */
function shownChoices(field, initial) {
  const choices = [...field.choices];
  if (initial && !choices.some((choice) => choice.value === initial)) {
    choices.unshift({ value: initial, title: initial, detail: '', available: null });
  }
  const hasEmpty = choices.some((choice) => choice.value === '');
  return { choices, hasEmpty };
}

function select(field, ids, initial, changed) {
  const { choices, hasEmpty } = shownChoices(field, initial);
  const element = h('select', {
    id: ids.control,
    name: field.name,
    class: 'input select',
    'aria-required': field.required ? 'true' : null,
    on: { input: changed },
  });
  const none = field.required ? 'Choose…' : 'Not set';
  if (!hasEmpty && !field.default && !(field.required && initial)) put(element, h('option', { value: '' }, none));
  put(element, grouped(choices));
  if (field.other) put(element, h('option', { value: OTHER }, 'Another location…'));
  element.value = choices.some((choice) => choice.value === initial) ? initial : field.default;
  if (isLong(field)) return withMore(field, element, choices, changed);
  return oneElement(element);
}

/** The options, below the headings of their groups. */
function grouped(choices) {
  const made = (one) => h('option', { value: one.value }, one.title || one.value);
  const headings = new Map();
  const nodes = [];
  for (const one of choices) {
    if (!one.group) nodes.push(made(one));
    else if (headings.has(one.group)) headings.get(one.group).append(made(one));
    else {
      headings.set(one.group, h('optgroup', { label: one.group }, made(one)));
      nodes.push(headings.get(one.group));
    }
  }
  return nodes;
}

/** Below the list: the detail of the choice, and a field for a value that is not in the list. */
function withMore(field, element, choices, changed) {
  const detail = h('p', { class: 'choice-detail muted', role: 'status' });
  const label = `Location for ${field.title}`;
  const typed = h('input', {
    type: 'text', class: 'input', 'aria-label': label, placeholder: 's3://bucket/prefix/model', autocomplete: 'off',
    autocapitalize: 'none', spellcheck: 'false', hidden: true, on: { input: changed },
  });
  const isTyped = () => element.value === OTHER;
  const update = () => {
    show(typed, isTyped());
    setText(detail, choices.find((choice) => choice.value === element.value)?.detail ?? '');
    show(detail, Boolean(detail.textContent));
  };
  element.addEventListener('input', () => {
    update();
    if (isTyped()) typed.focus();
  });
  // Nothing can have been typed yet, so no error is shown.
  element.addEventListener('change', (event) => isTyped() && event.stopPropagation());
  update();
  const list = oneElement(element);
  const text = oneElement(typed);
  return {
    node: element,
    more: h('div', { class: 'below' }, typed, detail),
    value: () => (isTyped() ? typed.value : element.value),
    mistake: () => (isTyped() && !typed.value.trim() ? `Type a location for ${field.title}, or choose from the list.` : null),
    focus: () => (isTyped() ? text : list).focus(),
    describe(ids) {
      list.describe(ids);
      text.describe(ids);
    },
    markWrong: (wrong) => (isTyped() ? text : list).markWrong(wrong),
  };
}

/** A list of choices with details; a long list can be searched. */
function radios(field, ids, initial, changed) {
  const { choices, hasEmpty } = shownChoices(field, initial);
  if (!field.required && !hasEmpty) choices.unshift({ value: '', title: 'No preference', detail: '', available: null });
  const only = field.required && choices.length === 1 ? choices[0].value : null;
  const rows = choices.map((choice) => radioRow(choice, ids.control, choice.value === (initial || only || '')));
  const inputs = rows.map((row) => row.input);
  const list = h('div', { class: 'choices' }, rows.map((row) => row.node));
  list.addEventListener('input', changed);
  const node = h('div', {}, choices.length > MANY_CHOICES ? search(field, rows) : null, list);
  if (choices.length > MANY_CHOICES) list.classList.add('many');
  return {
    node,
    value: () => inputs.find((input) => input.checked)?.value ?? '',
    focus() {
      const target = inputs.find((input) => input.checked) ?? inputs.find((input) => !input.closest('[hidden]'));
      target?.focus();
    },
    describe(describing) {
      rows.forEach((row) => {
        setOrRemove(row.input, 'aria-describedby', [describing, row.detailId].filter(Boolean).join(' '));
      });
    },
    markWrong: (wrong) => inputs.forEach((input) => setOrRemove(input, 'aria-invalid', wrong && 'true')),
  };
}

function radioRow(choice, group, checked) {
  const detailId = freshId('detail');
  const input = h('input', { type: 'radio', name: group, value: choice.value });
  input.checked = checked;
  const room = ROOM[String(choice.available)];
  const tag = room ? h('span', { class: `tag ${room[1]}` }, room[0]) : null;
  const hasMore = Boolean(choice.detail || room);
  const more = h('span', { class: 'choice-more', id: hasMore ? detailId : null },
    choice.detail ? h('span', { class: 'choice-detail' }, choice.detail) : null, tag);
  const inputId = freshId('choice');
  input.id = inputId;
  const label = h('label', { for: inputId }, h('span', { class: 'choice-title' }, choice.title || choice.value));
  const node = h('div', { class: 'choice' }, input, label, hasMore ? more : null);
  // The whole row is clickable; the label names it for screen readers.
  node.addEventListener('click', (event) => {
    if (event.target === node || more.contains(event.target)) input.click();
  });
  const words = `${choice.title} ${choice.value} ${choice.detail}`.toLowerCase();
  return { node, input, detailId: hasMore ? detailId : null, words };
}

function search(field, rows) {
  const found = h('span', { class: 'muted', role: 'status' });
  const label = `Search in ${field.title}`;
  const box = h('input', { type: 'search', class: 'input', placeholder: 'Search', 'aria-label': label });
  // Enter in the search field must not submit the form.
  box.addEventListener('keydown', (event) => event.key === 'Enter' && event.preventDefault());
  for (const type of ['input', 'change']) box.addEventListener(type, (event) => event.stopPropagation());
  box.addEventListener('input', () => {
    const wanted = box.value.trim().toLowerCase().split(/\s+/);
    let visible = 0;
    for (const row of rows) {
      // The selected choice stays visible during a search.
      const fits = row.input.checked || wanted.every((word) => row.words.includes(word));
      show(row.node, fits);
      visible += fits ? 1 : 0;
    }
    setText(found, box.value.trim() ? `${visible} of ${rows.length} shown` : '');
  });
  return h('div', { class: 'search' }, box, found);
}
