// The beacon of headcount: tells the service that a page was looked at, and nothing about who looked.
//
//   <script defer src="https://HOST/beacon.js" data-project="slug"></script>
//
// It reads the page's address, its referrer, its documentation metadata and the reader's wish not to be counted. It
// reads nothing that could tell one browser from another (screen, time zone, fonts, agent, canvas), writes nothing to
// the reader's machine, leaves no global name behind, and speaks to one host: the one that it came from.
//
// Attributes of the script element, all optional:
//   data-project, data-version, data-language, data-status   say what the page's own metadata does not
//   data-endpoint   where to post to, if not at v1/pageview beside the script
//   data-query      keep the query string (for sites whose pages differ by it); otherwise it never leaves the browser
//
// build.rs takes out comments and blanks and shortens names (strip.rs). Budget: 1,024 bytes gzipped.
(() => {
  const script = document.currentScript;
  const data = script.dataset;
  const target = data.endpoint || new URL('v1/pageview', script.src);

  // Only pages of the web are counted, not files. And a page may run the script twice: named in a theme and again by
  // hand, or once more by a framework that swaps a page's content. The mark is a symbol in the document's memory: it
  // dies with the page, and no name is taken.
  const mark = Symbol.for(target + data.project);
  if (document[mark] || !/^http/.test(location.protocol)) return;
  document[mark] = 1;

  // The address as it is counted: no fragment (a jump within a page is no view) and, unless asked for, no query, since
  // that is where search words and tokens are.
  const here = () => location.origin + location.pathname + ('query' in data ? location.search : '');

  const meta = name => document.getElementsByName(name)[0]?.content;
  const fact = (name, slug) =>
    data[name] || meta('headcount:' + name) || meta('readthedocs-' + slug);

  // How this document was loaded: its HTTP status, where the browser tells it, makes a host's plain "not found" page
  // countable as such without any metadata.
  const first = here();
  const load = performance.getEntriesByType('navigation')[0] || {};

  const optedOut = () => {
    if (navigator.globalPrivacyControl || navigator.doNotTrack == 1) return 1;
    // Storage is read for this flag and never written; a sandboxed frame throws on the very attempt.
    try {
      return localStorage['headcount-ignore'] == 'true';
    } catch {}
  };

  // A string body goes as text/plain, so there is no preflight. `keepalive` lets it outlive the page. Asked once more
  // if nothing or a passing refusal came back, with the same id, so that the service can tell the repeat from a second
  // view; not before the service wants it, and not at all if that is ten minutes away.
  const post = async (body, repeated) => {
    let wait = 0;
    try {
      const { status, headers } = await fetch(target, {
        method: 'POST',
        body,
        keepalive: true,
        credentials: 'omit',
        referrerPolicy: 'no-referrer',
      });
      if (status < 500 && status != 429) return;
      wait = headers.get('retry-after') * 1e3 || 0;
    } catch {}
    if (!repeated && wait < 6e5) setTimeout(post, wait + 1e3 + Math.random() * 2e3, body, 1);
  };

  let page; // the address of the latest view
  let due;  // where a view came from that nobody has seen yet

  // A page that was prepared in advance (a prerendered one is hidden too), or opened in a tab behind, is viewed when it
  // is first shown, or never.
  const show = () => {
    if (due == null || document.hidden) return;
    const referrer = due.split(/[?#]/)[0];
    due = null;
    if (optedOut()) return;
    post(JSON.stringify({
      project: fact('project', 'project-slug'),
      url: here(),
      referrer,
      status: +fact('status', 'http-status') || here() == first && load.responseStatus,
      version: fact('version', 'version-slug'),
      language: fact('language', 'language-slug') || document.documentElement.lang,
      // 64 random bits, chosen anew for each view: they name the view, not the viewer.
      id: crypto.getRandomValues(new Uint32Array(2)).reduce((id, half) => id + half.toString(16).padStart(8, 0), ''),
    }, (name, value) => value || undefined)); // what is not known is not sent
  };

  const view = from => {
    due ??= from;
    page = here();
    show();
  };

  // Single-page sites: a new path is a new view, which came from the one before.
  const moved = () => {
    if (here() != page) view(page);
  };
  for (const name of ['pushState', 'replaceState']) {
    const original = history[name];
    history[name] = function (...state) {
      original.apply(this, state);
      moved();
    };
  }
  addEventListener('popstate', moved);

  // Returning to a page (from the browser's memory of it, by reloading, by going back) is a view but no arrival: the
  // page names itself as the referrer, not the site which sent the reader there some time ago.
  addEventListener('pageshow', event => {
    if (event.persisted) view(here());
  });
  document.addEventListener('visibilitychange', show);
  view(/^(rel|ba)/.test(load.type) ? first : document.referrer);
})();
