/* The form for a new run: load, validate and submit it once. */

import { Failure, answerTo, ask, requestId, subjectFields, subjectQuery } from './api.js';
import { dataPanel } from './data.js';
import { freshId, h, number, setText, show, simpleHtml } from './dom.js';
import { makeField } from './field.js';
import { failureBox, waiting } from './notices.js';

const SAME_CLICK_MS = 10 * 60_000;

/** `started(run, again)` is called after a submission (`again`: the run existed already), `opened(subject)` once the form is loaded. */
export function formView(subject, { started, opened }) {
  const node = h('div', {});
  const draft = openDraft(subject);
  let answer = null;

  async function load() {
    node.replaceChildren(waiting('Reading the task…'));
    try {
      answer = await ask(`form?${subjectQuery(subject)}`);
      opened(answer);
      build();
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      node.replaceChildren(failureBox(error, load));
    }
  }

  function build() {
    if (!answer.templates?.length) {
      node.replaceChildren(h('div', { class: 'columns' }, dataPanel(answer.subject), noTemplates()));
      return;
    }
    const names = answer.templates.map((template) => template.name);
    const panel = h('div', { class: 'settings' });
    const chooser = names.length > 1 ? templateChooser(answer.templates, pick) : null;
    const place = h('div', {});
    let data = h('div', {});
    panel.append(...[chooser?.node, place].filter(Boolean));
    node.replaceChildren(h('div', { class: 'columns' }, data, panel));

    function pick(name) {
      const template = answer.templates.find((one) => one.name === name) ?? answer.templates[0];
      draft.keep({ template: template.name });
      chooser?.select(template.name);
      const facts = dataPanel(answer.subject, template.trains);
      data.replaceWith(facts);
      data = facts;
      place.replaceChildren(templateForm(template, answer, { subject, draft, started }));
    }
    pick(names.includes(draft.template) ? draft.template : names[0]);
  }

  return { node, load };
}

function noTemplates() {
  return h('div', { class: 'note info settings' },
    h('p', { class: 'note-title' }, 'No training is offered here yet'),
    h('p', {}, 'The operator of this installation can add one: a workflow template with the label used-by=cvat.'));
}

function templateChooser(templates, pick) {
  const group = freshId('template');
  const inputs = templates.map(({ name }) =>
    h('input', { type: 'radio', name: group, id: freshId('template'), value: name }));
  const node = h('fieldset', { class: 'field templates' }, h('legend', { class: 'label' }, 'What to run'),
    h('div', { class: 'choices' }, templates.map((template, index) => {
      const input = inputs[index];
      const help = h('div', { class: 'choice-more help', id: freshId('help') }, simpleHtml(template.help_html));
      const title = h('span', { class: 'choice-title' }, template.title || template.name);
      input.setAttribute('aria-describedby', help.id);
      return h('div', { class: 'choice' }, input, h('label', { for: input.id }, title), help);
    })));
  node.addEventListener('change', (event) => pick(event.target.value));
  return { node, select: (name) => inputs.forEach((input) => (input.checked = input.value === name)) };
}

function templateForm(template, answer, { subject, draft, started }) {
  const fields = [];
  const { everybody, expert } = groupsOf(template, draft, fields);
  const experts = expert.length ? h('details', { class: 'expert' }, h('summary', {}, 'Expert settings'), expert) : null;
  const summary = h('div', { class: 'note error summary', tabindex: '-1', hidden: true });
  const failure = h('div', {});
  const blocked = whyBlocked(answer, template);
  const submit = h('button', { type: 'submit', class: 'button primary', disabled: Boolean(blocked) }, 'Start run');
  if (blocked) submit.setAttribute('aria-describedby', blocked.id);
  const status = h('span', { class: 'muted', role: 'status' });
  const label = `Settings of ${template.title || template.name}`;
  const plan = planNote(template.plan, fields);
  const form = h('form', { class: 'form', novalidate: true, 'aria-label': label, on: { input: plan.update } },
    everybody, experts, plan.node, blocked ?? roomForRuns(answer), summary, failure, h('div', { class: 'actions' }, submit, status));
  let sending = false;
  let agreed = false;

  form.addEventListener('submit', (event) => {
    event.preventDefault();
    if (!sending && !blocked) send();
  });

  async function send() {
    failure.replaceChildren();
    const problems = fields.map((one) => [one, one.check()]).filter(([, sentence]) => sentence);
    point(problems, []);
    if (problems.length) return;
    const parameters = Object.fromEntries(fields.map((one) => [one.field.name, one.value()]));
    if (parameters['existing-shapes'] === 'replace-all' && !agreed) {
      askFirst();
      return;
    }
    agreed = false;
    setSending(true);
    const request = draft.request([template.name, parameters]);
    const body = { request, ...subjectFields(subject), template: template.name, parameters };
    try {
      const { status: code, content: run } = await answerTo('runs', { method: 'POST', body });
      draft.sent();
      setSending(false);
      started(run, code === 200);
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      setSending(false);
      refused(error);
    }
  }

  /** Ask for confirmation, because deleted annotations cannot be restored. */
  function askFirst() {
    const really = h('button', { type: 'button', class: 'button danger' }, 'Replace everything');
    const keep = h('button', { type: 'button', class: 'button' }, 'Go back');
    const title = 'All annotations will be deleted, also what people drew';
    const question = h('div', { class: 'note warning', role: 'alertdialog', 'aria-label': title },
      h('p', { class: 'note-title' }, title),
      h('p', {}, 'The boxes of the model take its place. CVAT keeps no copy: export the annotations first if you need them.'),
      h('div', { class: 'note-actions' }, really, keep));
    really.addEventListener('click', () => {
      agreed = true;
      send();
    });
    keep.addEventListener('click', () => {
      failure.replaceChildren();
      submit.focus();
    });
    failure.replaceChildren(question);
    question.scrollIntoView({ block: 'center' });
    keep.focus();
  }

  function setSending(now) {
    sending = now;
    submit.disabled = now;
    form.setAttribute('aria-busy', String(now));
    setText(submit, now ? 'Starting…' : 'Start run');
    setText(status, now ? 'Starting the run' : '');
  }

  /** The server refused. Without a response, the next attempt counts as the same click. */
  function refused(error) {
    if (error.status >= 400 && error.status < 500) draft.answered();
    const byName = new Map(fields.map((one) => [one.field.name, one]));
    const placed = error.errors.filter((one) => byName.has(one.field)).map((one) => [byName.get(one.field), one.text]);
    const others = error.errors.filter((one) => !byName.has(one.field));
    if (error.status === 422 && error.errors.length) {
      point(placed, others.map((one) => (one.field ? `${one.field}: ${one.text}` : one.text)));
      return;
    }
    const unknown = error.status === 0 || error.status >= 500;
    const box = failureBox(error, send, unknown
      ? 'If the run had started already, trying again does not start a second one.' : '');
    failure.replaceChildren(box);
    box.focus();
  }

  /** Show each error at its field and all of them in the summary, and focus the first. */
  function point(problems, others) {
    const sentences = new Map(problems);
    for (const one of fields) one.showProblem(sentences.get(one) ?? null);
    show(summary, problems.length + others.length > 0);
    if (summary.hidden) {
      setText(status, '');
      return;
    }
    const size = problems.length + others.length;
    const title = size === 1 ? 'One thing needs your attention' : `${number(size)} things need your attention`;
    setText(status, title);
    summary.replaceChildren(
      h('p', { class: 'note-title' }, title),
      h('ul', {}, problems.map(([one, sentence]) =>
        h('li', {}, h('button', { type: 'button', class: 'link', on: { click: () => goTo(one) } }, sentence))),
      others.map((sentence) => h('li', {}, sentence))));
    if (problems.length) goTo(problems[0][0]);
    else summary.focus();
  }

  function goTo(one) {
    if (experts?.contains(one.node)) experts.open = true;
    one.focus();
    one.node.scrollIntoView({ block: 'center' });
  }

  if (fields.some((one) => one.changedBefore && experts?.contains(one.node))) experts.open = true;
  return form;
}

/** The settings by group; expert settings are collapsed. Adds each setting to `fields`. */
function groupsOf(template, draft, fields) {
  const everybody = [];
  const expert = [];
  for (const group of template.groups ?? []) {
    const legend = () => h('legend', {}, group.title);
    const nodes = { everybody: [], expert: [] };
    for (const field of group.parameters) {
      const one = draftedField(template.name, field, draft);
      fields.push(one);
      nodes[field.visibility === 'expert' ? 'expert' : 'everybody'].push(one.node);
    }
    if (nodes.everybody.length) everybody.push(h('fieldset', { class: 'group' }, legend(), nodes.everybody));
    if (nodes.expert.length) expert.push(h('fieldset', { class: 'group' }, legend(), nodes.expert));
  }
  // In the order of the form, so that the first error is also the topmost one.
  fields.sort((one, other) => (one.field.visibility === 'expert') - (other.field.visibility === 'expert'));
  return { everybody, expert };
}

/** A setting that restores its value after a reload, and stores changes. */
function draftedField(template, field, draft) {
  const usual = field.default ?? '';
  const initial = draft.values[template]?.[field.name] ?? usual;
  const keep = () => {
    // Parameters of the same name may differ between templates.
    const own = { ...draft.values[template], [field.name]: one.value() };
    draft.keep({ values: { ...draft.values, [template]: own } });
  };
  const one = makeField(field, initial, keep);
  one.changedBefore = initial !== usual;
  return one;
}

/** What the run will train with the values of `fields`; empty if unknown. */
function planNote(plan, fields) {
  const node = h('div', { role: 'status' });
  let shown = null;

  function update() {
    const values = Object.fromEntries(fields.map((one) => [one.field.name, one.value().trim()]));
    const unknown = !plan || fields.some((one) => one.field.other && one.check());
    const said = unknown ? null : planned(plan, values);
    if (said === shown) return;
    shown = said;
    node.replaceChildren(...(said ? [h('div', { class: `note ${said.level}` },
      h('p', { class: 'note-title' }, said.text), said.advice ? h('p', {}, said.advice) : null)] : []));
  }

  update();
  return { node, update };
}

function planned(plan, { model, device, 'sys-node-pool': pool = '', 'gpu-count': gpus, 'cvat-finetune-checkpoint': start }) {
  if (start && start !== 'auto') {
    const from = plan.by_start[start];
    return from ? (model === 'auto' || model === from.model ? from.note : from.other) : null;
  }
  if (model !== 'auto') return plan.by_model[model] ?? null;
  return (device === 'cpu' || gpus === '0' ? plan.without_gpu : plan.by_pool[pool]) ?? null;
}

/** Why the user cannot start a run, shown before the form is filled in; null if they can. */
function whyBlocked(answer, template) {
  const empty = template.needs_boxes && answer.subject.boxes === 0;
  const reason = answer.blocked || (empty ? 'There are no boxes to train on. Draw boxes in CVAT, save, and open this again.' : '');
  if (!reason) return null;
  const title = answer.blocked ? 'You cannot start a run here' : 'Nothing to train on yet';
  return h('div', { class: 'note warning', id: freshId('blocked') }, h('p', { class: 'note-title' }, title), h('p', {}, reason));
}

function roomForRuns({ running, limit }) {
  if (typeof running !== 'number' || typeof limit !== 'number' || running === 0) return null;
  const have = `You have ${number(running)} of at most ${number(limit)} runs going at a time.`;
  if (running < limit) return h('p', { class: 'muted' }, have);
  return h('div', { class: 'note warning' }, h('p', { class: 'note-title' }, have),
    h('p', {}, 'Wait until one has finished before you start another; the tab “Runs” shows how far they are.'));
}

/** Unsent values, kept in this tab's storage over a reload. */
function openDraft(subject) {
  const key = `training-bridge/draft/${subject}`;
  let stored = {};
  try {
    stored = JSON.parse(sessionStorage.getItem(key)) ?? {};
  } catch {
    sessionStorage.removeItem(key);
  }
  const draft = {
    template: stored.template ?? null,
    values: stored.values ?? {},
    click: stored.click ?? null,
    keep(changes) {
      Object.assign(draft, changes);
      const { template, values, click } = draft;
      sessionStorage.setItem(key, JSON.stringify({ template, values, click }));
    },
    /** The id of this click. It is reused until there is a response, if the values are the same and it is recent. */
    request(content) {
      const fingerprint = JSON.stringify(content);
      const { click } = draft;
      const same = click?.fingerprint === fingerprint && Date.now() - click.at < SAME_CLICK_MS;
      draft.keep({ click: { fingerprint, id: same ? click.id : requestId(), at: Date.now() } });
      return draft.click.id;
    },
    answered: () => draft.keep({ click: null }),
    sent: () => draft.keep({ click: null, values: {} }),
  };
  return draft;
}
