//! The `annal` program: reads the command line, runs the command, turns its error into an exit code.

use std::process::ExitCode;

use tikv_jemallocator::Jemalloc;

/// Gives freed memory back to the system at once, whichever thread freed it (see .cargo/config.toml): what the budget counts is then what the
/// process holds.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

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
