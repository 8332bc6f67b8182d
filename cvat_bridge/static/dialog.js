/*
 * The page as a dialog in CVAT. A shadow root separates its styles from CVAT's. The browser keeps the focus inside
 * the modal <dialog> and closes it with Escape.
 */

import { mount } from './app.js';
import { h } from './dom.js';

let current = null;

/**
 * Open the dialog for `subject`. `start`, `remember`: see app.js. `forget()` is called after closing. `returnTo`: the
 * first of these elements that still exists gets the focus afterwards.
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
    // The dialog also works without its style sheet.
    for (const event of ['load', 'error']) style.addEventListener(event, resolve, { once: true });
  });
  shadow.append(style, dialog);
  document.body.append(host);
  // CVAT's keyboard shortcuts listen on the document and would react to typing in the dialog.
  for (const type of ['keydown', 'keypress', 'keyup']) host.addEventListener(type, (event) => event.stopPropagation());

  // CVAT's *Back* shows another page below the dialog.
  const leave = () => dialog.close();
  window.addEventListener('popstate', leave);

  await styled;
  const page = mount(root, { subject, start, remember, level: 2, corner: close });
  dialog.setAttribute('aria-labelledby', page.titleId);
  dialog.addEventListener('close', () => {
    window.removeEventListener('popstate', leave);
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

/** Focus the first element that still exists. Some of CVAT's buttons are not focusable elements. */
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
