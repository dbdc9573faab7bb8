// The beacon script of headcount: it reports that a page was viewed, and nothing about the reader.
//
//   <script defer src="https://HOST/page.js" data-project="slug"></script>
//
// It reads the page's URL, its referrer, its documentation metadata, the reader's opt-out, and whether a program drives
// the browser. It reads nothing that could tell one reader's browser from another (screen, time zone, fonts, user agent,
// canvas), writes nothing to the reader's machine, adds no global name, and makes no request but its beacon.
//
// Attributes of the script element, all optional:
//   data-project, data-version, data-language   take precedence over the page's own metadata
//   data-status     the HTTP status of the page that was loaded
//   data-endpoint   the URL of the beacon endpoint, if it is not v1/pageview beside the script
//   data-query      keep the query string (for sites whose pages differ by it); without it the script never sends one
//   data-hash       the site routes by fragment: `/docs/#/guide` is the page `/docs/guide`. Without it the script never
//                   sends a fragment
//
// scripts/beacon writes the minified script, beacon.min.js. Budget: 1,400 bytes gzipped.
(() => {
  // An element of type module is not `currentScript`: the stack of an error names the file that is running. A page may
  // have several elements of the script; one that names the project takes precedence.
  const current = document.currentScript;
  const running = current?.src || Error().stack;
  const script = [...document.querySelectorAll('[data-project]'), current, ...document.scripts]
    .find(tag => tag?.src && running.includes(tag.src));
  const data = script.dataset;
  const target = data.endpoint || new URL('v1/pageview', script.src);

  // Only pages with a host are counted, not files. A page may run the script twice: from two elements, or once more
  // because a framework swaps the page's content. The mark is a symbol in the document's memory: it ends with the page,
  // and no name is taken.
  //
  // A frame within a page of the same host is a part of that page. A frame within another host's page counts as soon as
  // a part of it is on screen (below); reading that host throws.
  const mark = Symbol.for(target);
  let seen = top == self;
  try {
    if (document[mark] || !location.host || !seen && top.origin) return;
  } catch {}
  document[mark] = 1;

  // URLs that differ by a trailing slash, `index.html`, `.html` or percent-encoding name one page.
  // `unescape` accepts any text; what it returns is compared, never sent.
  const plain = url => unescape(url).replace(/(\/(index)?)?(.html)?$/, '');

  // The URL as it is counted: no fragment (a jump within a page is no view) and, without `data-query`, no query, which
  // is where search words and tokens are. The canonical link of a documentation host often names another version: it
  // counts only if it names this page.
  const here = () => {
    const url = (location.origin + location.pathname + ('hash' in data ? location.hash : ''))
      .replace(/[^/]*#!?\/([^?#]*).*|#.*/, '$1');
    const canonical = document.querySelector('[rel=canonical]')?.href;
    return (plain(canonical) == plain(url) ? canonical : url) + ('query' in data ? location.search : '');
  };

  const meta = name => document.getElementsByName(name)[0]?.content;
  const fact = (name, slug = name + '-slug', set = data[name]) =>
    set || meta('headcount:' + name) || meta('readthedocs-' + slug);

  // A string body is sent as text/plain, so there is no preflight. `keepalive` lets the request outlive the page. It is
  // repeated once, after a network error or a temporary refusal, with the same id, which separates the repeat from a second
  // view; not before the service wants it, and not at all if that is ten minutes away.
  const post = (body, repeated) => fetch(target, {
    method: 'POST',
    body,
    keepalive: true,
    credentials: 'omit',
    referrerPolicy: 'no-referrer',
  }).catch(() => 0).then(({ status, headers }) => {
    const wait = headers?.get('retry-after') | 0;
    if ((status < 500 && status != 429) || repeated || wait > 599) return;
    setTimeout(post, (wait + 1 + Math.random() * 2) * 1e3, body, 1);
  });

  const entry = performance.getEntriesByType('navigation')[0];
  let first;   // URL of the first view
  let page;    // URL of the latest view
  let from;    // referrer of the pending view, never empty; null if none is pending
  let title;   // title of the document when the pending view began
  let renamed; // the pending view began with replaceState
  let timer;   // set while the pending view is on screen

  // Sends the pending view. Its metadata is read now, when the theme has rendered the page.
  const send = url => {
    if (!timer) return;
    clearTimeout(timer);
    const referrer = from.split(/[?#]/)[0];
    timer = from = null;
    // A new URL of the same content: a router that tidies the URL, or names the heading on screen.
    // Then the reader's opt-out. Storage is read for this flag and never written; a sandboxed frame throws on the very
    // attempt.
    try {
      if (renamed && title == document.title ||
        navigator.globalPrivacyControl || navigator.doNotTrack == 1 || localStorage['headcount-ignore'] == 'true') return;
    } catch {}
    // How the document was loaded says nothing about the pages that a router shows later.
    const loaded = url == (first ??= url);
    post(JSON.stringify({
      project: fact('project'),
      url,
      referrer,
      // 1 if a program drives the browser. The browsers of readers all say no, so it distinguishes no reader from another.
      webdriver: +navigator.webdriver,
      status: +fact('status', 'http-status', loaded && data.status) ||
        // "Not found" in VitePress, Docusaurus and docsify.
        (document.querySelector('.NotFound,.margin-vert--xl .hero__title,[id^=_404-]') ? 404 : loaded && entry?.responseStatus),
      version: fact('version'),
      language: fact('language') || document.documentElement.lang,
      // 63 random bits, drawn for each view: they name the view, not the reader. The highest bit makes it 16 digits.
      id: (crypto.getRandomValues(new BigUint64Array(1))[0] | 1n << 63n).toString(16),
    }, (name, value) => value || undefined)); // an unknown fact is not sent
  };
  const sendHere = () => send(here());

  // A view is sent when its page has settled: two animation frames after the title changed, at most 500 ms.
  const settle = () => {
    if (!timer) return;
    requestAnimationFrame(title == document.title ? settle : () => requestAnimationFrame(sendHere));
  };

  // A page that was prerendered, or opened in a background tab, is viewed when it is first shown, or never. A page that
  // is hidden before it has settled is sent: without a screen there are no animation frames.
  const show = () => {
    if (document.hidden) sendHere();
    else if (from && !timer && seen) settle(timer = setTimeout(sendHere, 500));
  };

  // Begins a view, or gives the pending one the URL to which the router has moved.
  const view = (referrer, replaced) => {
    if (!from) {
      from = referrer || '?'; // without its query: nothing
      renamed = replaced;
      title = document.title;
    }
    page = here();
    show();
  };

  // Single-page sites: a new path is a new view, which came from the one before.
  const moved = ({ navigationType }) => {
    const replaced = navigationType == 'replace';
    if (plain(here()) == plain(page)) return;
    if (!replaced) send(page);
    view(page, replaced);
  };

  // The Navigation API also reports a router that kept a `pushState` of its own. An element with the id `navigation`
  // has that name too.
  if (self.navigation?.currentEntry) navigation.addEventListener('currententrychange', moved);
  else {
    for (const navigationType of ['push', 'replace']) {
      const name = navigationType + 'State';
      const original = history[name];
      history[name] = (...state) => {
        original.apply(history, state);
        moved({ navigationType });
      };
    }
    addEventListener('popstate', moved);
  }

  // A reader who leaves before the page has settled is sent now.
  addEventListener('pagehide', sendHere);
  document.addEventListener('visibilitychange', show);

  // Returning to a page (from the browser's memory of it, by reloading, by going back) is a view but no arrival: the
  // page names itself as the referrer, not the site that sent the reader there some time ago.
  addEventListener('pageshow', ({ persisted }) => {
    if (persisted) view(here());
  });

  if (!seen) {
    new IntersectionObserver(([entry]) => {
      seen = entry.intersectionRect.width > 1;
      show();
    }).observe(document.documentElement);
  }
  view(/^[rb]/.test(entry?.type) ? here() : document.referrer);
})();
