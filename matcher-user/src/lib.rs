//! The agent of matcher: feeds to tables, hits to notification candidates.
//!
//! Data flows one way; a module knows only modules above it in this list:
//!
//! - what is spoken of: [`protocol`], [`indicator`], [`hit`];
//! - feeds to indicators: [`feeds`], [`indicators`], [`verdicts`];
//! - whose traffic may be looked at: [`consent`], [`subscribers`], [`nat64`];
//! - [`config`], [`canary`];
//! - feeds from the web and from files that change: [`fetch`];
//! - lists to what the kernel looks up: [`tables`];
//! - the border to the kernel, the only module that names `aya`: [`kernel`];
//! - events to hits: [`clock`], [`drain`];
//! - hits to candidates: [`aggregate`], [`candidate`];
//! - [`store`] and [`sinks`];
//! - what commands and agent do: [`instance`], [`control`], [`agent`];
//! - captures through the program in the kernel: [`capture`], [`replay`].
//!
//! `main` wires them. Everything that decides is pure code with the clock
//! passed in.

pub mod agent;
pub mod aggregate;
pub mod canary;
pub mod candidate;
pub mod capture;
pub mod clock;
pub mod config;
pub mod consent;
pub mod control;
pub mod drain;
pub mod feeds;
pub mod fetch;
pub mod hit;
pub mod indicator;
pub mod indicators;
pub mod instance;
pub mod kernel;
pub mod nat64;
pub mod protocol;
pub mod replay;
pub mod sinks;
pub mod store;
pub mod subscribers;
pub mod tables;
mod threads;
pub mod verdicts;
