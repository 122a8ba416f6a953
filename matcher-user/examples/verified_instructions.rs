//! How many instructions the verifier of the running kernel walks to accept
//! each program that is built in: `cargo xtask kernels` runs this in its
//! guests. One line a program, `matcher 39868`; `unknown` where the kernel does
//! not tell.

use std::process::ExitCode;

use matcher_user::kernel::{
    KernelError,
    object::Object,
    program::{Clock, Limits, Loaded, Program},
};

fn main() -> ExitCode {
    match print() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

#[expect(
    clippy::print_stdout,
    reason = "a program of its own, whose output this is"
)]
fn print() -> Result<(), KernelError> {
    let limits = Limits {
        max_flows: 1,
        max_indicators: 1,
        max_consent_entries: 1,
        max_port_ranges: 1,
        ring_bytes: 1 << 12,
    };
    let mut loaded = Loaded::load(&Object::built_in()?, limits, Clock::Kernel)?;
    for (name, program) in [("matcher", Program::Matcher), ("parse", Program::Parse)] {
        match loaded.verified_instructions(program)? {
            Some(walked) => println!("{name} {walked}"),
            None => println!("{name} unknown"),
        }
    }
    Ok(())
}
