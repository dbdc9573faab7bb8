//! headcount: a stand-in for the real command line, enough to run the engine's child process.

mod embedded;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

#[derive(Parser)]
enum Command {
    #[command(hide = true)]
    EngineChild(embedded::engine::ChildArgs),
    /// Runs the engine until its standard input ends: for trying things out.
    Engine {
        #[arg(long)]
        data: PathBuf,
    },
}

fn main() -> ExitCode {
    match Command::parse() {
        // Before any runtime: the engine takes this thread and makes its own.
        Command::EngineChild(args) => embedded::engine::child_main(&args),
        Command::Engine { data } => {
            let runtime = tokio::runtime::Runtime::new().expect("a runtime");
            runtime.block_on(async {
                let config = embedded::engine::EngineConfig::new(data);
                match embedded::engine::Engine::start(&config).await {
                    Ok(mut engine) => {
                        println!("{} {:?} {:?}", engine.url(), engine.kind(), engine.pid());
                        println!("{}", engine.died().await);
                        ExitCode::FAILURE
                    }
                    Err(error) => {
                        eprintln!("{error}");
                        ExitCode::FAILURE
                    }
                }
            })
        }
    }
}
