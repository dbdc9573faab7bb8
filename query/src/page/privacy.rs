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
                    p { "No cookie, no storage and no identifier is left on a reader's machine. The browser may cache the script for a day; it is the same file for all. IP address and user agent are used until the request is answered, and are not recorded. Hashes of them, under a random secret, are in this process's memory. They limit what one client may send, and speed up the recognition of browsers. They are never written." }
                    p {
                        "To count visitors, two coordinates of a view are kept: one for the project, one for the page. Each is one of "
                        (words::number(1 << facts.precision)) " registers and a small rank, at most " (facts.coordinate_bits)
                        " bits. They are computed with a secret key, and unrelated between projects and pages."
                    }
                    @match &facts.key {
                        Some(key) => {
                            p {
                                "A key lives for one " (key.lives_for) ". The present key is for " (key.period) ". On "
                                (words::instant(key.ends)) " it is replaced by a one-way step, and erased. "
                                @match key.last_destroyed {
                                    Some(at) => { "The last one was erased on " (words::instant(at)) "." }
                                    None => { "No period has ended since this process started." }
                                }
                            }
                        }
                        None => { p { "This process serves reports only and has no key." } }
                    }
                    p { "Robots are detected by version " (facts.robot_rules) " of the rules." }
                    p { "A reader with one of these is not counted: " (facts.opt_out.join(", ")) "." }
                }
                section {
                    h2 { "Figures" }
                    p { (words::threshold(facts.small_cell_floor, "other")) }
                    p { "A month is closed " (facts.close_after_hours) " hours after its end at the earliest, when all accepted views are counted. Then its sketches are removed, and only numbers stay." }
                    p { "Single page views stay in the log for " (facts.log_retention_hours) " hours. Figures are deleted " (facts.retention_months) " months after their month." }
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
