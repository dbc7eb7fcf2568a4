//! Reclaiming: `apply`, `undo` and `trash` against a real pool, with whatever may come between.

mod busy;
mod cloud;
mod crashes;
mod races;
mod steps;
mod threats;
mod trash;
