//! Inline templates of a task: an honest subset of Go's text/template with the function `env`. What is outside of it is refused by
//! name when it is parsed, so that a submission can be refused; nothing is ever rendered by half.
//!
//! `parse` reads a text into nodes, `render` writes them with values; `env_file` reads a rendered file into variables. All pure.
//! Source: `spec/runtime.md` 3.5; the syntax is Go's text/template (behaviour only).

pub mod env_file;
pub mod parse;
pub mod render;
