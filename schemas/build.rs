//! Compiles `proto/pageview.proto` with protox, a protobuf compiler in Rust, so that no `protoc` need be installed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto/pageview.proto");
    let descriptors = protox::compile(["proto/pageview.proto"], ["proto"])?;
    prost_build::Config::new().compile_fds(descriptors)?;
    Ok(())
}
