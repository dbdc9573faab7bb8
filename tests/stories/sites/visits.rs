//! The visits: what a reader does on each site, and the views that it is.

use crate::visit::Action::{Anchor, Back, Click, Enter, Forward, Open, Reload, Type};
use crate::visit::{Site, Step};

/// All sites.
pub const SITES: &[Site] = &[
    Site { name: "furo", steps: FURO },
    Site { name: "rtd", steps: RTD },
    Site { name: "material", steps: MATERIAL },
    Site { name: "material-instant", steps: MATERIAL },
    Site { name: "mdbook", steps: MDBOOK },
    Site { name: "docusaurus", steps: DOCUSAURUS },
    Site { name: "vitepress", steps: VITEPRESS },
    Site { name: "docsify", steps: DOCSIFY },
    Site { name: "rustdoc", steps: RUSTDOC },
    Site { name: "doxygen", steps: DOXYGEN },
    Site { name: "javadoc", steps: JAVADOC },
];

const FURO: &[Step] = &[
    Step(Open("/en/2.0/index.html"), "/en/2.0/ 2.0 en 200"),
    Step(Click(".sidebar-tree a[href='install.html']"), "/en/2.0/install.html 2.0 en 200"),
    Step(Click("article a[href='guide.html']"), "/en/2.0/guide.html 2.0 en 200"),
    Step(Anchor("article a[href='#last-part']"), ""),
    Step(Click(".sidebar-brand"), "/en/2.0/ 2.0 en 200"),
    Step(Back, "/en/2.0/guide.html 2.0 en 200"),
    Step(Reload, "/en/2.0/guide.html 2.0 en 200"),
    Step(Type(".sidebar-search", "feathers"), ""),
    Step(Enter, "/en/2.0/search.html 2.0 en 200"),
    Step(Click("#search-results li a[href*='faq']"), "/en/2.0/faq.html 2.0 en 200"),
    Step(Open("/en/1.0/"), "/en/1.0/ 1.0 en 200"),
    Step(Click(".sidebar-tree a[href='reference.html']"), "/en/1.0/reference.html 1.0 en 200"),
    Step(Open("/en/2.0/no/such/page.html"), "/en/2.0/no/such/page.html 2.0 en 404"),
    Step(Open("/en/1.0/faq.html#why-feathers"), "/en/1.0/faq.html 1.0 en 200"),
];

/// The theme's canonical link names another version and another language than the page's own. It must not be followed.
const RTD: &[Step] = &[
    Step(Open("/en/latest/"), "/en/latest/ latest en 200"),
    Step(Click(".wy-menu a[href='install.html']"), "/en/latest/install.html latest en 200"),
    Step(Click("[itemprop='articleBody'] a[href='guide.html']"), "/en/latest/guide.html latest en 200"),
    Step(Anchor("[itemprop='articleBody'] a[href='#last-part']"), ""),
    Step(Click("a[rel='next']"), "/en/latest/reference.html latest en 200"),
    Step(Back, "/en/latest/guide.html latest en 200"),
    Step(Type("#rtd-search-form input", "feathers"), ""),
    Step(Enter, "/en/latest/search.html latest en 200"),
    Step(Click("#search-results li a[href*='faq']"), "/en/latest/faq.html latest en 200"),
    Step(Open("/de/latest/index.html"), "/de/latest/ latest de 200"),
    Step(Click(".wy-menu a[href='install.html']"), "/de/latest/install.html latest de 200"),
    Step(Reload, "/de/latest/install.html latest de 200"),
    Step(Open("/en/latest/no/such/page.html"), "/en/latest/no/such/page.html latest en 404"),
    Step(Open("/de/latest/faq.html#why-feathers"), "/de/latest/faq.html latest de 200"),
];

const MATERIAL: &[Step] = &[
    Step(Open("/2.0/"), "/2.0/ 2.0 en 200"),
    Step(Click(".md-nav a[href$='install/']"), "/2.0/install/ 2.0 en 200"),
    Step(Click("article a[href$='guide/']"), "/2.0/guide/ 2.0 en 200"),
    Step(Anchor("article a[href$='#last-part']"), ""),
    Step(Click("article a[href$='reference/']"), "/2.0/reference/ 2.0 en 200"),
    Step(Back, "/2.0/guide/ 2.0 en 200"),
    Step(Forward, "/2.0/reference/ 2.0 en 200"),
    Step(Reload, "/2.0/reference/ 2.0 en 200"),
    Step(Type(".md-search__input", "feathers"), ""),
    Step(Click(".md-search-result__link[href*='faq/']"), "/2.0/faq/ 2.0 en 200"),
    Step(Open("/1.0/"), "/1.0/ 1.0 en 200"),
    Step(Click(".md-nav a[href$='guide/']"), "/1.0/guide/ 1.0 en 200"),
    Step(Open("/2.0/no/such/page/"), "/2.0/no/such/page/ 2.0 en 404"),
    Step(Open("/1.0/faq/#why-feathers"), "/1.0/faq/ 1.0 en 200"),
];

const RUSTDOC: &[Step] = &[
    Step(Open("/2.0/quill/index.html"), "/2.0/quill/ 2.0 en 200"),
    Step(Click("dl.item-table a.struct"), "/2.0/quill/struct.Feather.html 2.0 en 200"),
    Step(Anchor(".sidebar a[href='#sharpening']"), ""),
    Step(Anchor(".sidebar a[href='#method.dip']"), ""),
    Step(Click("a.src"), "/2.0/src/quill/quill.rs.html 2.0 en 200"),
    Step(Back, "/2.0/quill/struct.Feather.html 2.0 en 200"),
    Step(Reload, "/2.0/quill/struct.Feather.html 2.0 en 200"),
    Step(Click(".sidebar-crate a"), "/2.0/quill/ 2.0 en 200"),
    Step(Open("/1.0/quill/"), "/1.0/quill/ 1.0 en 200"),
    Step(Click("dl.item-table a.mod"), "/1.0/quill/paper/ 1.0 en 200"),
    Step(Open("/2.0/quill/struct.Goose.html"), "/2.0/quill/struct.Goose.html 2.0 en 404"),
    Step(Open("/1.0/quill/fn.print.html"), "/1.0/quill/fn.print.html 1.0 en 200"),
];

const MDBOOK: &[Step] = &[
    Step(Open("/index.html"), "/ 2.0 en 200"),
    Step(Click("#mdbook-sidebar a[href='install.html']"), "/install.html 2.0 en 200"),
    Step(Click("main a[href='guide.html']"), "/guide.html 2.0 en 200"),
    Step(Anchor("main a[href='#last-part']"), ""),
    Step(Click("a[rel~='next']"), "/reference.html 2.0 en 200"),
    Step(Back, "/guide.html 2.0 en 200"),
    Step(Reload, "/guide.html 2.0 en 200"),
    Step(Click("#mdbook-search-toggle"), ""),
    Step(Type("#mdbook-searchbar", "feathers"), ""),
    Step(Click("#mdbook-searchresults li a[href*='faq']"), "/faq.html 2.0 en 200"),
    Step(Open("/no/such/page.html"), "/no/such/page.html 2.0 en 404"),
    Step(Open("/guide.html#first-part"), "/guide.html 2.0 en 200"),
];

const DOCUSAURUS: &[Step] = &[
    Step(Open("/"), "/ 1.0 en 200"),
    Step(Click("nav.menu a[href='/install']"), "/install 1.0 en 200"),
    Step(Click("article a[href='/guide']"), "/guide 1.0 en 200"),
    Step(Anchor("article a[href='#last-part']"), ""),
    Step(Click("article a[href='/reference']"), "/reference 1.0 en 200"),
    Step(Back, "/guide 1.0 en 200"),
    Step(Forward, "/reference 1.0 en 200"),
    Step(Reload, "/reference 1.0 en 200"),
    Step(Open("/next/guide"), "/next/guide current en 200"),
    Step(Click("nav.menu a[href='/next/faq']"), "/next/faq current en 200"),
    Step(Click("article a[href='/next']"), "/next current en 200"),
    Step(Open("/no/such/page"), "/no/such/page - en 404"),
    Step(Open("/no/other/page"), "/no/other/page - en 404"),
    Step(Open("/no/third/page"), "/no/third/page - en 404"),
    Step(Open("/faq#why-feathers"), "/faq 1.0 en 200"),
];

const VITEPRESS: &[Step] = &[
    Step(Open("/"), "/ 2.0 en 200"),
    Step(Click(".VPSidebar a[href='/install.html']"), "/install.html 2.0 en 200"),
    Step(Click(".vp-doc a[href='/guide.html'], .vp-doc a[href='./guide.html']"), "/guide.html 2.0 en 200"),
    Step(Anchor(".vp-doc a[href='#last-part']"), ""),
    Step(Click(".pager-link.next"), "/reference.html 2.0 en 200"),
    Step(Back, "/guide.html 2.0 en 200"),
    Step(Forward, "/reference.html 2.0 en 200"),
    Step(Click(".VPFlyout.VPNavBarTranslations button"), ""),
    Step(Click(".VPFlyout.VPNavBarTranslations a[href^='/de/']"), "/de/reference.html 2.0 de 200"),
    Step(Click(".VPSidebar a[href='/de/faq.html']"), "/de/faq.html 2.0 de 200"),
    Step(Reload, "/de/faq.html 2.0 de 200"),
    Step(Open("/no/such/page.html"), "/no/such/page.html 2.0 en 404"),
    Step(Open("/de/guide.html#first-part"), "/de/guide.html 2.0 de 200"),
];

/// Routes are in the fragment (`data-hash`).
const DOCSIFY: &[Step] = &[
    Step(Open("/"), "/ 2.0 en 200"),
    Step(Click(".sidebar-nav a[href='#/install']"), "/install 2.0 en 200"),
    Step(Click(".markdown-section a[href='#/guide']"), "/guide 2.0 en 200"),
    Step(Anchor(".markdown-section a[href*='id=first-part']"), ""),
    Step(Click(".sidebar-nav a[href='#/reference']"), "/reference 2.0 en 200"),
    Step(Back, "/guide 2.0 en 200"),
    Step(Click(".sidebar-nav a[href='#/faq']"), "/faq 2.0 en 200"),
    Step(Reload, "/faq 2.0 en 200"),
    Step(Open("/#/no/such/page"), "/no/such/page 2.0 en 404"),
    Step(Open("/?x#/guide?id=first-part"), "/guide 2.0 en 200"),
];

const DOXYGEN: &[Step] = &[
    Step(Open("/2.0/index.html"), "/2.0/ 2.0 en 200"),
    Step(Click("#main-menu > li > a[href='annotated.html']"), ""),
    Step(Click("#main-menu ul a[href='annotated.html']"), "/2.0/annotated.html 2.0 en 200"),
    Step(Click("a.el[href='classquill_1_1Feather.html']"), "/2.0/classquill_1_1Feather.html 2.0 en 200"),
    Step(Anchor("a[href='#pub-methods']"), ""),
    Step(Click("a.el[href='classquill_1_1Sheet.html']"), "/2.0/classquill_1_1Sheet.html 2.0 en 200"),
    Step(Back, "/2.0/classquill_1_1Feather.html 2.0 en 200"),
    Step(Reload, "/2.0/classquill_1_1Feather.html 2.0 en 200"),
    Step(Open("/2.0/classquill_1_1Page_3_01int_01_4.html"), "/2.0/classquill_1_1Page_3_01int_01_4.html 2.0 en 200"),
    Step(Open("/1.0/"), "/1.0/ 1.0 en 200"),
    Step(Open("/1.0/quill_8hpp_source.html"), "/1.0/quill_8hpp_source.html 1.0 en 200"),
    Step(Open("/2.0/classquill_1_1Goose.html"), "/2.0/classquill_1_1Goose.html 2.0 en 404"),
    Step(Open("/1.0/classquill_1_1Sheet.html#details"), "/1.0/classquill_1_1Sheet.html 1.0 en 200"),
];

const JAVADOC: &[Step] = &[
    Step(Open("/2.0/index.html"), "/2.0/ 2.0 en 200"),
    Step(Click("a[href='org/quill/ink/package-summary.html']"), "/2.0/org/quill/ink/package-summary.html 2.0 en 200"),
    Step(Click("main a[href='Feather.html']"), "/2.0/org/quill/ink/Feather.html 2.0 en 200"),
    Step(Anchor("main a[href^='#write']"), ""),
    Step(Click("main a[href='../paper/Sheet.html']"), "/2.0/org/quill/paper/Sheet.html 2.0 en 200"),
    Step(Back, "/2.0/org/quill/ink/Feather.html 2.0 en 200"),
    Step(Reload, "/2.0/org/quill/ink/Feather.html 2.0 en 200"),
    Step(Type("#search-input", "Feather"), ""),
    Step(Click(".ui-menu-item"), "/2.0/org/quill/ink/Feather.html 2.0 en 200"),
    Step(Open("/1.0/"), "/1.0/ 1.0 en 200"),
    Step(Click("nav a[href='index-all.html'], a[href='index-all.html']"), "/1.0/index-all.html 1.0 en 200"),
    Step(Open("/2.0/org/quill/ink/Goose.html"), "/2.0/org/quill/ink/Goose.html 2.0 en 404"),
    Step(Open("/1.0/org/quill/ink/Ink.html#method-summary"), "/1.0/org/quill/ink/Ink.html 1.0 en 200"),
];
