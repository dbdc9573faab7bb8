//! Recipes from the documents.

use anyhow::{Context, Result, ensure};
use std::path::Path;

/// The only code block of this language in a document of the repository.
pub fn block(document: &str, language: &str) -> Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(document);
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {document}"))?;
    let fence = format!("```{language}\n");
    ensure!(text.matches(&fence).count() == 1, "{document} has one block of {language}");
    let (_, rest) = text.split_once(&fence).context("the block's begin")?;
    let (block, _) = rest.split_once("```").context("the block's end")?;
    Ok(block.to_owned())
}

/// `text` with each of these replaced; each must occur.
pub fn replaced(text: &str, replacements: &[(&str, &str)]) -> Result<String> {
    replacements.iter().try_fold(text.to_owned(), |text, (from, to)| {
        ensure!(text.contains(from), "the recipe has no {from:?}:\n{text}");
        Ok(text.replace(from, to))
    })
}
