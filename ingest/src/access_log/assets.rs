//! Which paths are no pages: what a page loads, feeds, and files for programs.

use memchr::memmem;
use std::str::FromStr;

/// Endings of files that are no pages.
const EXTENSIONS: &[&str] = &[
    // Images.
    "apng",
    "avif",
    "bmp",
    "gif",
    "ico",
    "jpeg",
    "jpg",
    "png",
    "svg",
    "svgz",
    "tif",
    "tiff",
    "webp",
    // Styles, scripts and what belongs to them.
    "css",
    "js",
    "less",
    "map",
    "mjs",
    "scss",
    "wasm",
    "webmanifest",
    // Fonts.
    "eot",
    "otf",
    "ttf",
    "woff",
    "woff2",
    // Sound and video.
    "flac",
    "mov",
    "mp3",
    "mp4",
    "oga",
    "ogg",
    "ogv",
    "wav",
    "webm",
    // Feeds and data.
    "atom",
    "csv",
    "inv",
    "json",
    "jsonld",
    "rss",
    "xml",
    "yaml",
    "yml",
    // Files to download.
    "7z",
    "apk",
    "bz2",
    "deb",
    "dmg",
    "epub",
    "exe",
    "gz",
    "iso",
    "jar",
    "msi",
    "pdf",
    "rar",
    "rpm",
    "tar",
    "tgz",
    "whl",
    "xz",
    "zip",
    "zst",
];

/// Folders of files that are no pages.
const FOLDERS: &[&str] = &["/_static/", "/_images/", "/_sources/", "/_downloads/", "/.well-known/"];

/// Files that are no pages.
const NAMES: &[&str] = &["robots.txt", "favicon.ico", "ads.txt", "humans.txt", "security.txt", "feed"];

/// Longest ending that is compared.
const MAX_EXTENSION_BYTES: usize = 16;

/// Paths that are no pages. The default is a list of endings, folders and files; a setting adds and removes some.
///
/// ```
/// use headcount_ingest::access_log::assets::Assets;
/// let mut assets = Assets::default();
/// assert!(assets.contains(b"/_static/doctools") && assets.contains(b"/logo.PNG") && !assets.contains(b"/guide.html"));
/// assets.remove(&".pdf".parse().unwrap());
/// assert!(!assets.contains(b"/manual.pdf"));
/// ```
#[derive(Clone, Debug)]
pub struct Assets {
    extensions: Vec<String>,
    folders: Vec<memmem::Finder<'static>>,
    names: Vec<String>,
}

/// One rule: an ending (`.pdf`), a folder anywhere in the path (`/_static/`) or a file in any folder (`robots.txt`). The case of letters
/// does not matter in endings and files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AssetRule {
    /// Without its dot.
    Extension(String),
    /// With a slash at both ends.
    Folder(String),
    /// The last segment of the path.
    Name(String),
}

/// Text that is no rule.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
#[error("expected an ending such as .pdf, a folder such as /_static/, or a file such as robots.txt")]
pub struct InvalidAssetRule;

impl FromStr for AssetRule {
    type Err = InvalidAssetRule;

    fn from_str(text: &str) -> Result<Self, InvalidAssetRule> {
        let is_folder = text.len() > 2 && text.starts_with('/') && text.ends_with('/');
        if is_folder {
            return Ok(AssetRule::Folder(text.to_owned()));
        }
        let name = text.trim_start_matches('/');
        if name.is_empty() || name.contains(['/', '?', '#', '*']) {
            return Err(InvalidAssetRule);
        }
        match name.strip_prefix('.') {
            Some(extension) if (1..=MAX_EXTENSION_BYTES).contains(&extension.len()) && !extension.contains('.') => {
                Ok(AssetRule::Extension(extension.to_ascii_lowercase()))
            }
            Some(_) => Err(InvalidAssetRule),
            None => Ok(AssetRule::Name(name.to_ascii_lowercase())),
        }
    }
}

impl Default for Assets {
    fn default() -> Self {
        let owned = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
        Assets {
            extensions: owned(EXTENSIONS),
            folders: FOLDERS.iter().map(memmem::Finder::new).collect(),
            names: owned(NAMES),
        }
    }
}

impl Assets {
    /// Adds a rule.
    pub fn add(&mut self, rule: AssetRule) {
        match rule {
            AssetRule::Extension(extension) => self.extensions.push(extension),
            AssetRule::Folder(folder) => self.folders.push(memmem::Finder::new(&folder).into_owned()),
            AssetRule::Name(name) => self.names.push(name),
        }
    }

    /// Removes a rule. One that is not there changes nothing.
    pub fn remove(&mut self, rule: &AssetRule) {
        match rule {
            AssetRule::Extension(extension) => self.extensions.retain(|known| known != extension),
            AssetRule::Folder(folder) => self.folders.retain(|known| known.needle() != folder.as_bytes()),
            AssetRule::Name(name) => self.names.retain(|known| known != name),
        }
    }

    /// Whether the path, without its query, is no page.
    pub fn contains(&self, path: &[u8]) -> bool {
        let path_end = path.strip_suffix(b"/").unwrap_or(path);
        let file = path_end.rsplit(|&byte| byte == b'/').next().unwrap_or(path_end);
        // `/a.png/` is a page of a host that has folders for pages, unless its file is a feed.
        let extension = if path.ends_with(b"/") { None } else { extension_of(file) };
        let is_one_of =
            |texts: &[String], text: &[u8]| texts.iter().any(|known| text.eq_ignore_ascii_case(known.as_bytes()));
        extension.is_some_and(|extension| is_one_of(&self.extensions, extension))
            || is_one_of(&self.names, file)
            || self.folders.iter().any(|folder| folder.find(path).is_some())
    }
}

fn extension_of(file: &[u8]) -> Option<&[u8]> {
    let dot = memchr::memrchr(b'.', file)?;
    Some(&file[dot + 1..]).filter(|extension| extension.len() <= MAX_EXTENSION_BYTES)
}
