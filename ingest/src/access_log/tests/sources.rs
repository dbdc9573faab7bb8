//! Whole files: compression, damage, rotation.

use super::*;
use crate::access_log::files::{self, BytesRead};
use crate::access_log::lines::read_lines;
use crate::access_log::summary::{Place, Summary};
use std::io::Write as _;

fn read(bytes: Vec<u8>) -> Summary {
    let projects = projects();
    let views = Views::new(rules(Some("docs.example.org")), &projects);
    let mut summary = Summary::default();
    let source = files::decompressed(std::io::Cursor::new(bytes), &BytesRead::default()).unwrap();
    let each = |line, outcome: Outcome| summary.add(&outcome, Place { file: 0, line });
    read_lines(source, Some(&Format::Combined), None, &views, each).unwrap();
    summary
}

#[test]
fn compressed_files_are_read_whole() {
    let line = format!("{}\n", requested("GET /a HTTP/1.1", "200"));
    let gz = |text: &str| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    let bz2 = |text: &str| {
        let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    let zst =
        |text: &str| ruzstd::encoding::compress_to_vec(text.as_bytes(), ruzstd::encoding::CompressionLevel::Fastest);
    let skipped = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"abc"].concat();
    for (name, bytes) in [
        ("text", format!("{line}{line}").into_bytes()),
        ("gz", [gz(&line), gz(&line)].concat()),
        ("bz2", [bz2(&line), bz2(&line)].concat()),
        ("zstd", [skipped.clone(), zst(&line), skipped, zst(&line)].concat()),
    ] {
        assert_eq!(read(bytes).views, 2, "{name}");
    }
    let cut = gz(&line.repeat(1000));
    let source =
        files::decompressed(std::io::Cursor::new(cut[..cut.len() - 12].to_vec()), &BytesRead::default()).unwrap();
    let projects = projects();
    let views = Views::new(rules(None), &projects);
    let error = read_lines(source, Some(&Format::Combined), None, &views, |_, _| ()).unwrap_err();
    assert!(!error.to_string().contains("192.0.2.1"), "{error}");
}

#[test]
fn invented_logs_of_documentation_sites_are_read_whole() {
    let quirks: &[u8] = include_bytes!("../../../fixtures/access_logs/quirks.log");
    let names: &[u8] = include_bytes!("../../../fixtures/access_logs/docs-names.log");
    for (log, lines, views) in [(quirks, 129, 129), (names, 55, 54)] {
        let projects = projects();
        let rules = rules(Some("quirks.example"));
        let quirks = ("quirks".parse().unwrap(), vec!["quirks.example".parse().unwrap()]);
        projects.replace(ProjectSnapshot::new(&BTreeMap::from([quirks])));
        let views_of = Views::new(rules, &projects);
        let mut summary = Summary::default();
        let each = |line, outcome: Outcome| summary.add(&outcome, Place { file: 0, line });
        let format = read_lines(log, None, None, &views_of, each).unwrap();
        assert_eq!((format, summary.lines, summary.views), (Format::Combined, lines, views));
    }
}

#[test]
fn damaged_lines_have_their_reasons_and_end_nothing() {
    let line = requested("GET /a HTTP/1.1", "200");
    let torn = &line[..line.len() - 20];
    let million = "x".repeat(1 << 20);
    let text = format!("\u{feff}{line}\r\n\r\n\0\0\0{line}\n{million}\nab\0cd\n# note\n{line}\n{torn}");
    let summary = read(text.into_bytes());
    assert_eq!((summary.lines, summary.views), (8, 3));
    let reasons: Vec<_> =
        summary.not_read.iter().map(|(reason, lines)| (*reason, lines.count, lines.first.line)).collect();
    let expected = [
        (NotRead::Blank, 1, 2),
        (NotRead::Directive, 1, 6),
        (NotRead::TooLong, 1, 4),
        (NotRead::NulBytes, 1, 5),
        (NotRead::Torn, 1, 8),
    ];
    assert_eq!(reasons, expected);
    assert_eq!(read(line.into_bytes()).views, 1, "a last line that is whole counts");
}

#[test]
fn rotated_files_are_in_the_order_of_their_lines() {
    let home = tempfile::tempdir().unwrap();
    let sorted = |names: &[&str]| {
        let folder = tempfile::tempdir_in(home.path()).unwrap();
        names.iter().for_each(|name| std::fs::write(folder.path().join(name), "").unwrap());
        let files = files::files(&[folder.path().to_owned()]).unwrap();
        files.iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    for (names, expected) in [
        (
            &["access.log", "access.log.1", "access.log.2.gz", "access.log.10.gz", "error.log", ".hidden"][..],
            &["access.log.10.gz", "access.log.2.gz", "access.log.1", "access.log"][..],
        ),
        (
            &["access.log", "access.log-20261126", "access.log-20261031.gz"],
            &["access.log-20261031.gz", "access.log-20261126", "access.log"],
        ),
        (
            &["access.log", "access-2026-11-26T10-00-00.000.log.gz", "access-2026-11-25T10-00-00.000.log.gz"],
            &["access-2026-11-25T10-00-00.000.log.gz", "access-2026-11-26T10-00-00.000.log.gz", "access.log"],
        ),
        (&["u_ex261126.log", "u_ex261031.log"], &["u_ex261031.log", "u_ex261126.log"]),
        (&["b.access.log", "a.access.log", "a.access.log.1"], &["a.access.log.1", "a.access.log", "b.access.log"]),
    ] {
        assert_eq!(sorted(names), expected);
    }
}
