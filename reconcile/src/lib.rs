//! Compares Glance databases with RBD pools.
//!
//! ```text
//! inventory (all I/O, reads only) ─→ facts ─→ classify (pure) ─→ findings ─→ scan
//! ```
//!
//! Rules that hold throughout: what could not be read is unknown, never none; a scan that could not read everything says
//! so; an image is called dead only by what is known.

mod apply;
mod classify;
mod facts;
mod finding;
mod inventory;
mod journal;
#[cfg(test)]
mod model;
mod plan;
mod scan;

pub use self::{
    apply::{
        Applied, AppliedStep, AppliedSummary, ApplyError, LockError, Outcome, Run, TrashedImage, Undoing, Undone,
        UndoneStep, UndoneSummary, Verdict, after, apply, before, policy_of, purge, rehearse, restore_trashed,
        trash_list, undo,
    },
    classify::{Policy, classify, is_glance_name},
    facts::{
        Broken, Child, Children, Closer, DatabaseFacts, Facts, GlanceFacts, GlanceImage, GlanceLocation, Lock,
        ParentFacts, Place, PoolFacts, RbdImage, SnapshotFacts, Trashed, Usage,
    },
    finding::{Block, Finding, Kind, Severity},
    inventory::{
        ConfError, Database, DatabaseError, GatherError, GlanceConf, Problem, Progress, Sources, Stage, examine, images,
    },
    journal::{Entry, Event, Faults, Header, Journal, JournalError, Record, Target},
    plan::{Action, Allow, Health, Plan, PlanError, PlanPolicy, PlanPool, PlanScan, PlanSummary, Refusal, Step, plan},
    scan::{PoolSummary, Scan, ScanOptions, Summary, scan},
};
