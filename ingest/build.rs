//! Makes the served script, `$OUT_DIR/beacon.js`, from its readable source.

#[path = "beacon/strip.rs"]
mod strip;

fn main() {
    for file in ["build.rs", "beacon/beacon.js", "beacon/strip.rs"] {
        println!("cargo:rerun-if-changed={file}");
    }
    let source = std::fs::read_to_string("beacon/beacon.js").expect("read beacon/beacon.js");
    let served = strip::strip(&source).unwrap_or_else(|reason| panic!("strip beacon/beacon.js: {reason}"));
    let out = std::path::Path::new(&std::env::var_os("OUT_DIR").expect("OUT_DIR is set by cargo")).join("beacon.js");
    std::fs::write(&out, served).unwrap_or_else(|error| panic!("write {}: {error}", out.display()));
}
