/* What stands where something is still on its way, or did not arrive. */

import { h, setText, show } from './dom.js';

/** While something is read. */
export function waiting(text) {
  return h('div', { class: 'waiting', role: 'status' }, h('span', { class: 'spinner', 'aria-hidden': 'true' }), text);
}

/** A failure as a sentence with what can be done. `more`: another sentence. */
export function failureBox(failure, again, more = '') {
  const { node, update } = lastingFailureBox(again);
  update(failure, more);
  return node;
}

/** One that is told of one failure after the other, and in which the keyboard stays where it is. */
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
