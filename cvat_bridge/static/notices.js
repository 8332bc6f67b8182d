/* Notices for content that is loading or could not be loaded. */

import { h, setText, show } from './dom.js';

/** The notice while loading. */
export function waiting(text) {
  return h('div', { class: 'waiting', role: 'status' }, h('span', { class: 'spinner', 'aria-hidden': 'true' }), text);
}

/** A notice for a failure, with actions. `more`: another sentence. */
export function failureBox(failure, again, more = '') {
  const { node, update } = lastingFailureBox(again);
  update(failure, more);
  return node;
}

/** A notice that can show one failure after another without losing the focus. */
export function lastingFailureBox(again) {
  const title = h('p', { class: 'note-title' });
  const rest = h('p', {});
  const login = h('a', { class: 'button', href: '/auth/login', target: '_blank', rel: 'noopener' }, 'Log in to CVAT');
  const button = h('button', { type: 'button', class: 'button', on: { click: again } }, 'Try again');
  const node = h('div', { class: 'note error', role: 'alert', tabindex: '-1' },
    title, rest, h('div', { class: 'note-actions' }, login, button));
  return {
    node,
    update(failure, more = '') {
      setText(title, failure.message);
      setText(rest, more);
      show(rest, Boolean(more));
      show(login, failure.login);
    },
  };
}
