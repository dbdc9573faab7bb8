//! The visits: what a reader does on each site, and the views that it is.

use crate::visit::Action::{Anchor, Back, Click, Enter, Forward, Open, Reload, Type};
use crate::visit::{Site, Step};

/// All sites.
pub const SITES: &[Site] = &[
    Site { name: "furo", steps: FURO },
    Site { name: "material-instant", steps: MATERIAL },
    Site { name: "rustdoc", steps: RUSTDOC },
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
    Step(Click("#search-results li a"), "/en/2.0/faq.html 2.0 en 200"),
    Step(Open("/en/1.0/"), "/en/1.0/ 1.0 en 200"),
    Step(Click(".sidebar-tree a[href='reference.html']"), "/en/1.0/reference.html 1.0 en 200"),
    Step(Open("/en/2.0/no/such/page.html"), "/en/2.0/no/such/page.html 2.0 en 404"),
    Step(Open("/en/1.0/faq.html#why-feathers"), "/en/1.0/faq.html 1.0 en 200"),
];

const MATERIAL: &[Step] = &[
    Step(Open("/2.0/"), "/2.0/ 2.0 en 200"),
    Step(Click(".md-nav a[href$='/install/']"), "/2.0/install/ 2.0 en 200"),
    Step(Click("article a[href$='/guide/']"), "/2.0/guide/ 2.0 en 200"),
    Step(Anchor("article a[href$='#last-part']"), ""),
    Step(Click("article a[href$='/reference/']"), "/2.0/reference/ 2.0 en 200"),
    Step(Back, "/2.0/guide/ 2.0 en 200"),
    Step(Forward, "/2.0/reference/ 2.0 en 200"),
    Step(Reload, "/2.0/reference/ 2.0 en 200"),
    Step(Type(".md-search__input", "feathers"), ""),
    Step(Click(".md-search-result__link"), "/2.0/faq/ 2.0 en 200"),
    Step(Open("/1.0/"), "/1.0/ 1.0 en 200"),
    Step(Click(".md-nav a[href$='/guide/']"), "/1.0/guide/ 1.0 en 200"),
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
