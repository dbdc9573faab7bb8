//! The page about privacy.

use super::{Frame, document, words};
use crate::privacy::PrivacyFacts;
use maud::{Markup, html};

/// What the service does with the data of visitors.
pub(crate) fn privacy(facts: &PrivacyFacts) -> Markup {
    let list = |items: &[&str]| {
        html! { ul.plain { @for item in items { li { (item) } } } }
    };
    document(
        &Frame::plain("Privacy"),
        html! {
            header.top { div { p.kind { "What this service does with what it sees" } h1 { "Privacy" } } }
            main.words #content {
                section {
                    h2 { "Readers" }
                    p { "Nothing is left on a reader's machine: no cookie, no storage. IP address and user agent are used while a request is answered, and are not recorded. Hashes of them, under a secret of this process, are in its memory for a while, to limit what one client may send; they are never written." }
                    p {
                        "To count visitors, " (facts.coordinate_bits) " bits or less are kept: a place among "
                        (words::number(1 << facts.precision)) " and a small number, made with a secret key. They are different in every project and on every page."
                    }
                    @match &facts.key {
                        Some(key) => {
                            p {
                                "A key lives for one " (key.lives_for) ". This one is of " (key.period) "; it ends on "
                                (words::instant(key.ends)) ", is replaced by a step that cannot be reversed, and erased. "
                                @match key.last_destroyed {
                                    Some(at) => { "The last one was erased on " (words::instant(at)) "." }
                                    None => { "No period has ended since this process began." }
                                }
                            }
                        }
                        None => { p { "This process serves reports only and has no key." } }
                    }
                    p { "Robots are found by version " (facts.robot_rules) " of the rules." }
                    p { "Not counted at all, if they wish: " (facts.opt_out.join(", ")) "." }
                }
                section {
                    h2 { "Figures" }
                    p { (words::threshold(facts.small_cell_floor, "other")) }
                    p { (facts.close_after_hours) " hours after a month's end only numbers are kept of it." }
                    p { "Single page views stay in the log for " (facts.log_retention_hours) " hours, figures for " (facts.retention_months) " months after their month." }
                    p { "Countries: " (facts.country) "." }
                }
                section { h2 { "Without a threshold" } (list(facts.without_threshold)) }
                section { h2 { "Recorded of a page view" } (list(facts.recorded)) }
                section { h2 { "Never recorded" } (list(facts.never_recorded)) }
                section { h2 { "Not promised" } (list(facts.not_promised)) }
            }
            footer { p { "These are the values of the running service. As JSON with " code { "Accept: application/json" } "." } }
        },
    )
}
