//! The `annal` program: reads the command line, runs the command, turns its error into an exit code.

use std::process::ExitCode;

#[expect(clippy::print_stderr, reason = "before the log is set up, stderr is all there is")]
fn main() -> ExitCode {
    match server::cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("annal: error: {error}");
            if let Some(hint) = error.hint() {
                eprintln!("annal: hint: {hint}");
            }
            ExitCode::from(error.exit_code())
        }
    }
}
