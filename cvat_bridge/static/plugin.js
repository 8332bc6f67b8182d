/*
 * The menu item "Execute training Workflow" in an unmodified CVAT.
 *
 * Loaded by one <script> in CVAT's page. Registers with CVAT's plugin interface, and loads the dialog from static/ on
 * the first click. If CVAT lacks this interface, it only writes one line to the console. The open dialog is remembered
 * in this tab's session storage and opened again after a reload. Secrets are never stored.
 */
(() => {
  'use strict';

  const LABEL = 'Execute training Workflow';
  const WEIGHT = 35; // between CVAT's items for automatic annotation (30) and backup (40)
  const STORED = 'training-bridge/open';
  const PATIENCE_MS = 15_000;
  const PLACES = [
    { path: 'taskActions.items', kind: 'task', instance: 'taskInstance', slice: 'tasks' },
    { path: 'projectActions.items', kind: 'project', instance: 'projectInstance', slice: 'projects' },
  ];
  const ONCE = Symbol.for('training-bridge');
  if (window[ONCE]) return;
  window[ONCE] = true;

  const base = ownAddress(document.currentScript);
  let loads = 0;
  let registered = false;
  let opening = false;

  /** The folder of this file, if it is on CVAT's origin: the session cookie must not go anywhere else. */
  function ownAddress(script) {
    const usual = new URL('/training-bridge/', location.origin);
    if (!script?.src) return usual;
    const own = new URL('.', script.src);
    return own.origin === location.origin ? own : usual;
  }

  function say(sentence) {
    console.info(`Training bridge: ${sentence}`);
  }

  function register() {
    if (registered) return;
    const plugins = window.cvatUI;
    if (typeof plugins?.registerComponent !== 'function') return;
    registered = true;
    try {
      plugins.registerComponent(builder);
    } catch (error) {
      say(`this CVAT did not accept the plugin (${error?.message ?? error}); the menu stays as it is.`);
    }
  }

  function builder({ dispatch, actionCreators, store }) {
    const added = [];
    const missing = [];
    for (const place of PLACES) {
      const component = menuItem(place, store);
      try {
        const data = { weight: WEIGHT, shouldBeRendered: () => true };
        dispatch(actionCreators.addUIComponent(place.path, component, data));
        added.push([place.path, component]);
      } catch {
        missing.push(place.path);
      }
    }
    if (missing.length) say(`this CVAT has no place for a plugin at ${missing.join(' and ')}; nothing is added there.`);
    if (added.length) reopen();
    return {
      name: 'training-bridge',
      destructor() {
        for (const [path, component] of added) dispatch(actionCreators.removeUIComponent(path, component));
      },
    };
  }

  /** CVAT calls this plain function for each menu. It returns an item of an antd menu. */
  function menuItem(place, store) {
    let told = false;
    return function TrainingMenuItem(props) {
      // Older versions render components with React, which does not pass `key` on and would fail on an item.
      if (!Object.prototype.propertyIsEnumerable.call(props, 'key')) {
        if (!told) say('this CVAT draws its menus in another way; nothing is added there.');
        told = true;
        return null;
      }
      const id = props.targetProps?.[place.instance]?.id;
      const selected = store?.getState?.()?.[place.slice]?.selected;
      const several = Array.isArray(selected) && selected.length > 1;
      return {
        key: props.key,
        label: LABEL,
        disabled: several || !Number.isInteger(id),
        onClick: () => open(`${place.kind}:${id}`, {}, placesForFocus()),
      };
    };
  }

  /** Elements that may get the focus after closing; the menu no longer exists then. */
  function placesForFocus() {
    const active = document.activeElement;
    const outside = active?.closest('.ant-dropdown') ? null : active;
    return [document.querySelector('.ant-dropdown-open'), outside].filter(Boolean);
  }

  async function open(subject, start, returnTo) {
    // On a slow connection, a second click may come before the dialog is open.
    if (opening) return;
    opening = true;
    const forget = () => sessionStorage.removeItem(STORED);
    const remember = (state) =>
      sessionStorage.setItem(STORED, JSON.stringify({ ...state, subject, path: location.pathname }));
    try {
      const { openDialog } = await load();
      remember(start);
      await openDialog({ subject, start, returnTo, remember, forget });
    } catch (error) {
      say(`the dialog could not be loaded (${error?.message ?? error}).`);
      sorry(() => open(subject, start, returnTo), returnTo);
    } finally {
      opening = false;
    }
  }

  /** Load the dialog's code. Browsers cache a failed import, so a retry uses another URL. */
  async function load() {
    const address = new URL('static/dialog.js', base);
    if (loads) address.searchParams.set('try', String(loads));
    try {
      return await import(address);
    } catch (error) {
      loads += 1;
      throw error;
    }
  }

  function sorry(again, returnTo) {
    const dialog = document.createElement('dialog');
    dialog.setAttribute('aria-label', LABEL);
    const text = document.createElement('p');
    text.textContent =
      'The training bridge does not answer. Try again in a moment; reload the page if that does not help.';
    const buttons = [['Try again', again], ['Close', () => {}]].map(([label, action]) => {
      const button = document.createElement('button');
      button.type = 'button';
      button.textContent = label;
      button.style.marginInlineEnd = '8px';
      button.addEventListener('click', () => {
        dialog.close();
        action();
      });
      return button;
    });
    dialog.addEventListener('close', () => {
      dialog.remove();
      returnTo[0]?.focus();
    });
    dialog.append(text, ...buttons);
    document.body.append(dialog);
    dialog.showModal();
  }

  /** Reopen the dialog that was open before a reload. */
  function reopen() {
    let stored = null;
    try {
      stored = JSON.parse(sessionStorage.getItem(STORED));
    } catch {
      sessionStorage.removeItem(STORED);
    }
    if (stored?.path === location.pathname && typeof stored.subject === 'string') {
      open(stored.subject, { tab: stored.tab, run: stored.run }, []);
    }
  }

  register();
  if (!registered) {
    window.addEventListener('plugins.ready', register, { once: true });
    const wait = () =>
      setTimeout(() => {
        if (!registered) say('this CVAT offers no plugin interface; the menu stays as it is.');
      }, PATIENCE_MS);
    if (document.readyState === 'complete') wait();
    else window.addEventListener('load', wait, { once: true });
  }
})();
