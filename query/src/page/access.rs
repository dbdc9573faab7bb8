//! The form that requests a token, and the page for a token without access.

use super::{Frame, document};
use maud::{Markup, html};

/// The sign-in form. `next` is the path that was requested; `error` says in a sentence why the last token was refused.
pub(crate) fn sign_in(next: &str, error: Option<&str>) -> Markup {
    document(
        &Frame::plain("Sign in"),
        html! {
            main.alone #content {
                h1 { "Sign in" }
                p { "Reports are for those who have a token. The operator of this service makes one with " code { "headcount token create" } "." }
                form.sign-in method="post" action="/sign-in" {
                    input name="next" type="hidden" value=(next);
                    label for="token" { "Token" }
                    input #token name="token" type="password" autocomplete="off" autocapitalize="off" spellcheck="false" required
                        aria-describedby=[error.map(|_| "why")] aria-invalid=[error.map(|_| "true")];
                    @if let Some(error) = error { p.why #why role="alert" { (error) } }
                    button type="submit" { "Sign in" }
                }
                p.note { "Signing in keeps one cookie in this browser, for this service only, until you sign out. " a href="/privacy" { "Privacy" } }
            }
        },
    )
}

/// The page for a caller with a token but without access. It is the same whether or not the project exists.
pub(crate) fn not_allowed() -> Markup {
    document(
        &Frame::plain("Not for this token"),
        html! {
            main.alone #content {
                h1 { "Not for this token" }
                p { "There is no report at this address that your token opens. It may belong to another project, or have been revoked." }
                p { a href="/" { "The projects that you may see" } }
                form method="post" action="/sign-out" { button.quiet type="submit" { "Sign in with another token" } }
            }
        },
    )
}
