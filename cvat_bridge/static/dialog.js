/*
 * The page as a dialog over CVAT's: in a shadow root, so that neither's style reaches the other. The browser
 * keeps the keyboard inside a modal <dialog> and closes it with Escape.
 */

import { mount } from './app.js';
import { h } from './dom.js';

let current = null;

/**
 * Open for `subject`. `start`, `remember`: see app.js; `forget()` is called when it was closed; `returnTo`: elements
 * of which the first that is still there gets the keyboard back.
 */
export async function openDialog({ subject, start = {}, returnTo = [], remember = () => {}, forget = () => {} }) {
  current?.close();
  const host = h('training-bridge-dialog', {});
  const shadow = host.attachShadow({ mode: 'open' });
  const root = h('div', {});
  const dialog = h('dialog', { class: 'dialog' }, root);
  const cross = h('span', { 'aria-hidden': 'true' }, '×');
  const close = h('button', { type: 'button', class: 'close', 'aria-label': 'Close' }, cross);
  close.addEventListener('click', () => dialog.close());
  const style = h('link', { rel: 'stylesheet', href: new URL('app.css', import.meta.url).href });
  const styled = new Promise((resolve) => {
    // Without its style the dialog is plain, not broken.
    for (const event of ['load', 'error']) style.addEventListener(event, resolve, { once: true });
  });
  shadow.append(style, dialog);
  document.body.append(host);
  // CVAT listens on the document for its shortcuts and cannot see that somebody types in here.
  for (const type of ['keydown', 'keypress', 'keyup']) host.addEventListener(type, (event) => event.stopPropagation());

  await styled;
  const page = mount(root, { subject, start, remember, level: 2, corner: close });
  dialog.setAttribute('aria-labelledby', page.titleId);
  dialog.addEventListener('close', () => {
    page.stop();
    host.remove();
    current = null;
    forget();
    giveBack(returnTo);
  }, { once: true });
  current = dialog;
  dialog.showModal();
  page.focus();
}

/** The keyboard goes to the first that is still there; some of CVAT's buttons are elements that take none. */
function giveBack(candidates) {
  const target = candidates.find((element) => element.isConnected);
  if (!target) return;
  target.focus();
  if (document.activeElement === target) return;
  const inside = target.querySelector('button, a[href], [tabindex]');
  if (inside) {
    inside.focus();
    return;
  }
  target.tabIndex = -1;
  target.addEventListener('blur', () => target.removeAttribute('tabindex'), { once: true });
  target.focus();
}
