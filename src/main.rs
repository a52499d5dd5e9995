//! Parse the command line, run it, turn the outcome into an exit code.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use understudy::cli;
use understudy::error::chain;

fn main() -> ExitCode {
    let options = cli::Options::parse();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let said = match runtime {
        Ok(runtime) => {
            let said = runtime.block_on(cli::run(options));
            // Not to wait for a name that is being looked up.
            runtime.shutdown_background();
            said
        }
        Err(error) => Err(error.into()),
    };
    match said {
        Ok(said) => match cli::print(&said.text) {
            Ok(()) => ExitCode::from(said.code),
            Err(_) => ExitCode::FAILURE,
        },
        Err(error) => {
            // With standard error gone too, the exit code has to do.
            let _unheard = writeln!(std::io::stderr(), "understudy: {}", chain(error.as_ref()));
            ExitCode::from(cli::exit_code(&error))
        }
    }
}
