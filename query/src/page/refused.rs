//! Refused beacons, in sentences that say how to fix the cause.

use super::words;
use crate::report::RejectedHost;
use maud::{Markup, html};
use schemas::{Host, RejectionReason};

/// `reasons` are all refusals; `hosts` are the part of them that is listed by host, with a sentence for each host.
pub(super) fn sentences(project: &str, reasons: &[(&str, u64)], hosts: &[RejectedHost]) -> Markup {
    html! {
        ul.refused {
            @for refused in hosts { li { (of_host(project, refused)) } }
            @for (reason, beacons) in reasons {
                @if !hosts.iter().any(|refused| refused.reason == *reason) {
                    li { b { (words::counted(*beacons, "beacon", "beacons")) } (outcome(reason)) (words::rejection(reason)) " " code.more { (reason) } }
                }
            }
        }
    }
}

/// Prefetches and the like get a success response, so they are not called refused.
fn outcome(reason: &str) -> &'static str {
    let known = RejectionReason::ALL.iter().find(|known| known.name() == reason);
    if known.is_some_and(|reason| reason.status() < 400) { " not counted. " } else { " refused. " }
}

fn of_host(project: &str, refused: &RejectedHost) -> Markup {
    let times = times(refused.beacons);
    // The text came from outside: only a valid plain host may appear in a command that is copied into a shell.
    let plain = |host: &Host| host.as_str().bytes().all(|b| b.is_ascii_alphanumeric() || b".-_:[]".contains(&b));
    let host = refused.host.parse::<Host>().ok().filter(|host| !refused.rest && plain(host));
    html! {
        @match host {
            Some(host) => {
                "Beacons from " b { (host.as_str()) } " were refused " (times) ": "
                @if refused.reason == RejectionReason::ForeignHost.name() {
                    "the host is not registered for this project. If it is yours: "
                    code { "headcount project add " (project) " --host " (host.as_str()) }
                } @else {
                    (words::rejection(&refused.reason))
                }
            }
            None => {
                @if refused.rest { "Beacons from other hosts" } @else { "Beacons whose host is not known" } " were refused " (times) ". "
                @if refused.reason != RejectionReason::ForeignHost.name() { (words::rejection(&refused.reason)) }
                @else { "They are not registered for this project." }
            }
        }
    }
}

fn times(beacons: u64) -> String {
    if beacons == 1 { "once".to_owned() } else { format!("{} times", words::number(beacons)) }
}
