/* The bridge's page: a form for a new run and the list of runs. Used by the dialog in CVAT and by page.html. */

import { subjectFields, subjectQuery } from './api.js';
import { subjectLine } from './data.js';
import { freshId, h, setText } from './dom.js';
import { formView } from './form.js';
import { runsView } from './runs.js';

const TABS = { new: 'New run', runs: 'Runs' };

/**
 * Render the page into `root`. `subject`: `task:8,task:9` or `project:3`; `start`: the initial `{tab, run}`.
 * `remember({tab, run})` is called when they change, `named(title)` when the subject's title is known. `level`: level
 * of the heading; `corner`: an element for the upper right corner.
 */
export function mount(root, options) {
  const { subject, start = {}, remember = () => {}, named = () => {}, level = 1, corner = null } = options;
  const titleId = freshId('title');
  const about = h('p', { class: 'about' });
  const title = h(`h${level}`, { id: titleId, tabindex: '-1', autofocus: true }, 'Execute training Workflow');
  const header = h('header', { class: 'top' }, h('div', { class: 'top-text' }, title, about), corner);
  root.classList.add('bridge');
  if (!subjectQuery(subject)) {
    const text = 'This address names no task. Open the form from the menu of a task in CVAT.';
    root.replaceChildren(header, h('div', { class: 'body' }, h('p', { class: 'note error' }, text)));
    return { titleId, focus: () => title.focus(), stop() {} };
  }

  const live = h('div', { class: 'hidden-visually', role: 'status' });
  const say = (text) => setText(live, text);
  const state = { tab: start.tab in TABS ? start.tab : start.run ? 'runs' : 'new', run: start.run || null };
  let formIsOld = true;

  const runs = runsView(subject, { say });
  const form = formView(subject, {
    opened(answer) {
      named(answer.subject.title);
      about.replaceChildren(subjectLine(answer.subject), h('span', { class: 'who' }, ` · ${answer.user.name}`));
    },
    async started(run, again) {
      formIsOld = true;
      state.run = run.name;
      runs.setWatched(run.name);
      select('runs');
      say(again ? '' : `Run ${run.name} has been started`);
      await runs.watch(run.name, again ? `Run ${run.name} was started before: this was the same click again.` : '');
    },
  });

  const { task: tasks, project } = subjectFields(subject);
  about.replaceChildren(subjectLine(tasks ? { kind: 'task', ids: tasks } : { kind: 'project', ids: [project] }));
  const tabs = tabList({ new: form.node, runs: runs.node }, (tab) => select(tab));
  root.replaceChildren(header, tabs.list, h('div', { class: 'body' }, tabs.panels), live);

  function select(tab) {
    state.tab = tab;
    tabs.select(tab);
    remember({ ...state });
    runs.setVisible(tab === 'runs');
    if (formIsOld && tab === 'new') {
      formIsOld = false;
      form.load();
    }
  }

  runs.setWatched(state.run);
  select(state.tab);
  return { titleId, focus: () => title.focus(), stop: runs.stop };
}

/** Tabs that follow the ARIA pattern: one Tab stop, and arrow keys to change tabs. */
function tabList(contents, picked) {
  const names = Object.keys(contents);
  const panels = {};
  const tabs = {};
  for (const name of names) {
    const tabId = freshId('tab');
    const panelId = freshId('panel');
    tabs[name] = h('button', { type: 'button', role: 'tab', class: 'tab', id: tabId, 'aria-controls': panelId,
      on: { click: () => picked(name) } }, TABS[name]);
    panels[name] = h('div', { role: 'tabpanel', id: panelId, 'aria-labelledby': tabId }, contents[name]);
  }
  const list = h('div', { role: 'tablist', class: 'tabs', 'aria-label': 'What to show' }, Object.values(tabs));
  list.addEventListener('keydown', (event) => {
    const here = names.findIndex((name) => tabs[name] === event.target);
    const to = { ArrowRight: here + 1, ArrowLeft: here - 1, Home: 0, End: names.length - 1 }[event.key];
    if (to === undefined || here < 0) return;
    event.preventDefault();
    const name = names[(to + names.length) % names.length];
    picked(name);
    tabs[name].focus();
  });
  return {
    list,
    panels: Object.values(panels),
    select(wanted) {
      for (const name of names) {
        tabs[name].setAttribute('aria-selected', String(name === wanted));
        tabs[name].tabIndex = name === wanted ? 0 : -1;
        panels[name].hidden = name !== wanted;
      }
    },
  };
}
