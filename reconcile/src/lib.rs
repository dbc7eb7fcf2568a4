//! Compares a Glance database with an RBD pool.
//!
//! ```text
//! inventory (all I/O, reads only) ─→ facts ─→ classify (pure) ─→ findings ─→ scan
//! ```
//!
//! Rules that hold throughout: what could not be read is unknown, never none; a scan that could not read everything says
//! so; an image is called dead only by what is known.

mod classify;
mod facts;
mod finding;
mod inventory;
mod journal;
mod plan;
mod scan;

pub use self::{
    classify::{Policy, classify, is_glance_name},
    facts::{Closer, Facts, GlanceFacts, GlanceImage, GlanceLocation, Place, RbdImage, SnapshotFacts, Trashed},
    finding::{Finding, Kind, Severity, UnknownKind},
    inventory::{Database, DatabaseError, GatherError, Problem, Progress, Stage, images},
    journal::{Entry, Event, Header, Journal, JournalError, Record, Target},
    plan::{Action, Allow, Plan, PlanError, PlanPolicy, PlanPool, PlanScan, PlanSummary, Refusal, Step},
    scan::{Scan, Summary, scan},
};
