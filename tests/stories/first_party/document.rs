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

/// The tests that the pages on moving from another counter name in the last column of their tables.
#[test]
fn the_tests_that_the_documents_name_exist() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for counter in ["plausible", "umami", "goatcounter", "readthedocs"] {
        let document = format!("docs/moving-from-{counter}.md");
        let text = std::fs::read_to_string(root.join(&document)).with_context(|| format!("read {document}"))?;
        let rows: Vec<&str> =
            text.lines().filter(|line| line.starts_with("| ") && !line.ends_with("| tested by |")).collect();
        ensure!(rows.len() >= 7, "{document} has {} lines with a test", rows.len());
        for row in rows {
            let cell = row.trim_end_matches([' ', '|']).rsplit('|').next().unwrap_or_default();
            let named = cell.trim().trim_matches('`');
            let file = match (named.strip_prefix("--test first_party "), named.strip_prefix("--lib ")) {
                (Some(module), _) => format!("tests/stories/first_party/{module}.rs"),
                (_, Some("dialects")) => "ingest/src/http/tests/dialects.rs".to_owned(),
                (_, Some(module)) => format!("ingest/src/{}.rs", module.replace("::", "/")),
                (None, None) => anyhow::bail!("{document}: {row} names no test"),
            };
            let tests =
                std::fs::read_to_string(root.join(&file)).with_context(|| format!("{document}: {row}: {file}"))?;
            ensure!(tests.contains("#[test]") || tests.contains("#[tokio::test"), "{document}: {file} has no tests");
        }
    }
    Ok(())
}
