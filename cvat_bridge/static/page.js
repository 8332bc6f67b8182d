/* The standalone page: `?task=8`, `?task=8&task=9` or `?project=3`, with `&run=NAME` for one run. */

import { mount } from './app.js';

const query = new URLSearchParams(location.search);
const tasks = query.getAll('task').flatMap((text) => text.split(','));
const subject = query.has('project') ? `project:${query.get('project')}` : tasks.map((id) => `task:${id}`).join(',');

const page = mount(document.getElementById('bridge'), {
  subject,
  start: { run: query.get('run'), tab: location.hash.slice(1) || undefined },
  named(title) {
    document.title = `${title} · Training`;
  },
  remember({ tab, run }) {
    if (run) query.set('run', run);
    const address = new URL(location.href);
    address.search = query.toString();
    address.hash = tab;
    history.replaceState(null, '', address);
  },
});
page.focus();
