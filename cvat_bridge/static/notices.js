/* What stands where something is still on its way, or did not arrive. */

import { h } from './dom.js';

/** While something is read. */
export function waiting(text) {
  return h('div', { class: 'waiting', role: 'status' }, h('span', { class: 'spinner', 'aria-hidden': 'true' }), text);
}

/** A failure as a sentence with what can be done. `more`: another sentence. */
export function failureBox(failure, again, more = '') {
  const login = h('a', { class: 'button', href: '/auth/login', target: '_blank', rel: 'noopener' }, 'Log in to CVAT');
  return h('div', { class: 'note error', role: 'alert', tabindex: '-1' },
    h('p', { class: 'note-title' }, failure.message),
    more ? h('p', {}, more) : null,
    h('div', { class: 'note-actions' },
      failure.login ? login : null,
      h('button', { type: 'button', class: 'button', on: { click: again } }, 'Try again')));
}
