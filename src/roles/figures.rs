//! Figures in the text format of Prometheus (<https://prometheus.io/docs/instrumenting/exposition_formats/>).

use std::fmt::{Display, Write};

/// A page of figures.
#[derive(Default)]
pub struct Figures {
    text: String,
}

impl Figures {
    /// One figure with its kind (`counter` or `gauge`) and its values by label.
    pub fn family<V: Display>(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        values: impl IntoIterator<Item = (String, V)>,
    ) -> &mut Self {
        let _ = writeln!(self.text, "# HELP headcount_{name} {help}\n# TYPE headcount_{name} {kind}");
        for (labels, value) in values {
            let _ = writeln!(self.text, "headcount_{name}{labels} {value}");
        }
        self
    }

    /// One figure without labels.
    pub fn one(&mut self, name: &str, kind: &str, help: &str, value: impl Display) -> &mut Self {
        self.family(name, kind, help, [(String::new(), value)])
    }

    /// The page.
    pub fn text(&self) -> String {
        self.text.clone()
    }
}

/// The content type of such a page.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
