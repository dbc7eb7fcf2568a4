//! What was reclaimed, put back, or is still in the trash.

use std::path::Path;

use comfy_table::{Cell, CellAlignment};
use jiff::Timestamp;
use reconcile::{Action, Applied, AppliedStep, Outcome, TrashedImage, Undoing, Undone};
use serde::Serialize;

use super::{
    harmless, path,
    table::{plain, print, size},
};

/// What `apply` did, a line for each step, then what it comes to.
pub(crate) fn applied(applied: &Applied, journal: &Path) -> String {
    let mut text = steps(&applied.steps);
    let summary = &applied.summary;
    text += &match applied.dry_run {
        true => format!("{} of {} steps would be done", summary.done, summary.steps),
        false => format!("{} of {} steps done", summary.done, summary.steps),
    };
    for (count, what) in [(summary.skipped, "skipped"), (summary.failed, "failed"), (summary.left, "not come to")] {
        if count > 0 {
            text += &format!(", {count} {what}");
        }
    }
    text += "\n";
    if summary.bytes > 0 {
        text += &match applied.dry_run {
            true => format!("{} would be won once the trash is purged\n", size(summary.bytes)),
            false => format!("{} will be won once the trash is purged\n", size(summary.bytes)),
        };
    }
    if let Some(why) = &applied.stopped {
        text += &format!("stopped: {}; the same command finishes the plan\n", harmless(why));
    }
    text + &match applied.dry_run {
        true => "nothing was changed; --yes does it\n".to_owned(),
        false => format!("to take it back: glance-rbd undo {}\n", harmless(&journal.display().to_string())),
    }
}

fn steps(steps: &[AppliedStep]) -> String {
    if steps.is_empty() {
        return String::new();
    }
    let mut table = plain();
    for step in steps {
        table.add_row([
            Cell::new(outcome(step.result)),
            Cell::new(step.action),
            Cell::new(step.kind),
            Cell::new(format!("{}/{}", path(&step.pool, &step.namespace), step.image)),
            Cell::new(step.bytes.map_or_else(String::new, size)).set_alignment(CellAlignment::Right),
            Cell::new(step.why.as_deref().unwrap_or_default()),
        ]);
    }
    let mut text = print(table);
    for step in steps.iter().filter(|step| step.action == Action::Adopt && !step.commands.is_empty()) {
        text += &format!("to register {}:\n", harmless(&step.image));
        for command in &step.commands {
            text += &format!("  {}\n", harmless(command));
        }
    }
    text + "\n"
}

const fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Would => "would",
        Outcome::Done => "done",
        Outcome::DoneBefore => "done before",
        Outcome::Skipped => "skipped",
        Outcome::Failed => "failed",
    }
}

/// What `undo` did, a line for each step, then what it comes to.
pub(crate) fn undone(undone: &Undone) -> String {
    let mut table = plain();
    for step in &undone.steps {
        let result = match step.result {
            Undoing::Would => "would restore",
            Undoing::Restored => "restored",
            Undoing::InPlace => "in its place",
            Undoing::Lost => "not restored",
        };
        table.add_row([
            result.to_owned(),
            format!("{}/{}", path(&step.pool, &step.namespace), step.image),
            step.why.clone().unwrap_or_default(),
        ]);
    }
    let mut text = if undone.steps.is_empty() { String::new() } else { print(table) + "\n" };
    let summary = &undone.summary;
    text += &match undone.dry_run {
        true => format!("{} images would be put back", summary.restored),
        false => format!("{} images were put back", summary.restored),
    };
    let rest = [(summary.in_place, "are in their place"), (summary.lost, "cannot be"), (summary.left, "not come to")];
    for (count, what) in rest {
        if count > 0 {
            text += &format!(", {count} {what}");
        }
    }
    text += "\n";
    if let Some(why) = &undone.stopped {
        text += &format!("stopped: {}; the same command goes on\n", harmless(why));
    }
    if undone.dry_run && summary.restored > 0 {
        text += "nothing was changed; --yes does it\n";
    }
    text
}

/// What is in the trash, and why each is kept.
pub(crate) fn trash(list: &[TrashedImage]) -> String {
    if list.is_empty() {
        return "the trash is empty\n".into();
    }
    let mut table = plain();
    table.set_header(["ID", "IMAGE", "SIZE", "SINCE", "KEPT UNTIL", "KEPT BECAUSE"]);
    for entry in list {
        table.add_row([
            Cell::new(&entry.image_id),
            Cell::new(&entry.image),
            Cell::new(entry.size.map_or_else(String::new, size)).set_alignment(CellAlignment::Right),
            Cell::new(day(entry.trashed_at)),
            Cell::new(day(entry.deferred_until)),
            Cell::new(entry.kept.as_deref().unwrap_or("-")),
        ]);
    }
    print(table)
}

fn day(time: Timestamp) -> String {
    time.strftime("%F %T").to_string()
}

/// What `trash purge` prints for programs.
#[derive(Debug, Serialize)]
pub(crate) struct Purged<'a> {
    /// What was removed, and what of the plan was not.
    #[serde(flatten)]
    pub(crate) applied: &'a Applied,
    /// What is in the trash although its deferment has ended.
    pub(crate) kept: &'a [TrashedImage],
}

/// What was purged, and what was kept although its deferment has ended.
pub(crate) fn purged(applied: &Applied, kept: &[TrashedImage]) -> String {
    let mut text = steps(&applied.steps);
    let summary = &applied.summary;
    text += &match applied.dry_run {
        true => format!("{} images would be removed for good", summary.done),
        false => format!("{} images removed for good", summary.done),
    };
    if summary.bytes > 0 {
        text += &format!(": {}", size(summary.bytes));
    }
    text += "\n";
    for entry in kept {
        let name = format!("{}/{} (id {})", path(&entry.pool, &entry.namespace), entry.image, entry.image_id);
        text +=
            &format!("kept: {}: {}\n", harmless(&name), harmless(entry.kept.as_deref().unwrap_or("not planned for")));
    }
    if let Some(why) = &applied.stopped {
        text += &format!("stopped: {}\n", harmless(why));
    }
    if applied.dry_run && summary.done > 0 {
        text += "nothing was changed; --yes does it, and there is no way back\n";
    }
    text
}
