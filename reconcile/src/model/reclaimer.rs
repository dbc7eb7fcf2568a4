//! The reclaimer in the world's terms: the real classifier, planner and re-checks, between reads and writes of the model.
//! Each read and each write is a step of its own; it may be killed before any of them, and goes on by its journal.

use std::{collections::BTreeMap, rc::Rc, time::Duration};

use super::world::World;
use crate::{
    apply::{Verdict, after, before, policy_of},
    classify::classify,
    facts::{Facts, PoolFacts},
    finding::Kind,
    plan::{Action, Allow, Health, Plan, PlanPolicy, Step, plan},
    scan::{Scan, Summary},
};

pub(super) const GRACE: i64 = 60 * 60;
const DEFER: i64 = 2 * 60 * 60;

/// What a journal says of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Noted {
    Begun,
    Ended,
}

/// A look that is left out, to see that the model can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Careless {
    #[default]
    No,
    /// The look at who has the image open or cloned, after the move.
    Users,
    /// The look at the database, after the move.
    Owners,
}

/// Where it is, in what it keeps in memory.
#[derive(Debug, Clone, Default)]
enum At {
    #[default]
    Idle,
    /// The pool is read, the database not yet.
    Scanned(Box<PoolFacts>),
    /// Before a step: nothing was looked at.
    Step(usize),
    Looked(usize, Box<PoolFacts>),
    Decided(usize),
    HalfMoved(usize),
    Moved(usize),
    /// The pool was looked at again: who needs it there, and what it shows.
    Again(usize, Option<&'static str>, Box<PoolFacts>),
    PutBack(usize),
    Purging(usize),
}

impl At {
    fn place(&self) -> Option<usize> {
        match self {
            Self::Step(place)
            | Self::Looked(place, _)
            | Self::Decided(place)
            | Self::HalfMoved(place)
            | Self::Moved(place)
            | Self::Again(place, ..)
            | Self::PutBack(place)
            | Self::Purging(place) => Some(*place),
            Self::Idle | Self::Scanned(_) => None,
        }
    }
}

/// It, and what it keeps on disk.
#[derive(Debug, Default)]
pub(super) struct Reclaimer {
    at: At,
    careless: Careless,
    /// Scans, for `--seen`.
    scans: Vec<Scan>,
    plan: Option<Rc<Plan>>,
    journal: BTreeMap<usize, Noted>,
    /// Moved to the trash by this plan, and since when it is there.
    moved: BTreeMap<u64, i64>,
    /// How often it did something that cannot be undone, or has to be.
    pub(super) purged: u64,
    pub(super) trashed: u64,
}

fn policy(kinds: Vec<Kind>) -> PlanPolicy {
    PlanPolicy {
        grace: Duration::from_secs(GRACE.unsigned_abs()),
        only: kinds,
        max_images: 1000,
        max_percent: 100,
        defer: Duration::from_secs(DEFER.unsigned_abs()),
        // Small worlds are empty at times.
        allow: vec![Allow::NoLocations],
    }
}

fn all_kinds() -> Vec<Kind> {
    Kind::ALL.into_iter().filter(|kind| kind.treatment().is_some()).collect()
}

impl Reclaimer {
    pub(super) fn new(careless: Careless) -> Self {
        Self { careless, ..Self::default() }
    }

    /// Goes one read or write further; what went wrong, if it took what somebody needs.
    pub(super) fn go_on(&mut self, world: &mut World) -> Result<(), String> {
        let at = std::mem::take(&mut self.at);
        self.at = match at {
            At::Idle => At::Scanned(Box::new(world.pool(None))),
            At::Scanned(pool) => {
                self.scanned(world, *pool);
                if self.plan.is_some() { At::Step(0) } else { At::Idle }
            }
            at => self.step_on(world, at)?,
        };
        Ok(())
    }

    /// The scan is done; a plan is made of it and of those before.
    fn scanned(&mut self, world: &World, pool: PoolFacts) {
        let facts = world.facts(pool, world.glance());
        let policy = policy(all_kinds());
        let findings = classify(&facts, &policy_of(&policy), world.ours());
        let scan = scan(&facts, findings, world);
        let plan = plan(&scan, &self.scans, &Health::default(), &policy, world.ours());
        self.scans.push(scan);
        if self.scans.len() > 4 {
            self.scans.remove(0);
        }
        (self.journal, self.moved) = (BTreeMap::new(), BTreeMap::new());
        self.plan = (!plan.steps.is_empty()).then(|| Rc::new(plan));
    }

    fn step_on(&mut self, world: &mut World, at: At) -> Result<At, String> {
        let plan = self.plan.clone().expect("steps are a plan's");
        let place = at.place().expect("there is a step");
        let Some(step) = plan.steps.get(place) else {
            self.plan = None;
            return Ok(At::Idle);
        };
        let id: u64 = step.image_id.parse().expect("the model's ids are numbers");
        Ok(match at {
            At::Step(_) => match self.journal.get(&place) {
                Some(Noted::Ended) => At::Step(place + 1),
                Some(Noted::Begun) => self.resume(world, step, place, id),
                None => At::Looked(place, Box::new(world.pool(Some(id)))),
            },
            At::Looked(_, pool) => match before(&plan, step, &world.facts(*pool, world.glance()), &[], world.ours()) {
                Verdict::Skip(_) => self.end(place),
                _ => {
                    self.journal.insert(place, Noted::Begun);
                    At::Decided(place)
                }
            },
            At::Decided(_) => self.act(world, step, place, id),
            At::HalfMoved(_) => {
                world.leave_place(id);
                self.trashed += 1;
                At::Moved(place)
            }
            At::Moved(_) => {
                let user =
                    if world.is_open(id) { Some("a writer") } else { world.has_children(id).then_some("a clone") };
                At::Again(place, user, Box::new(world.pool(Some(id))))
            }
            At::Again(_, user, pool) => {
                let facts = world.facts(*pool, world.glance());
                let verdict = after(step, &facts, &[], world.ours(), &plan.policy);
                let used = user.is_some() && self.careless != Careless::Users;
                if used || (verdict != Verdict::Go && self.careless != Careless::Owners) {
                    At::PutBack(place)
                } else {
                    if let Some(needs) = world.needed(id).filter(|_| world.disks.contains_key(&id)) {
                        return Err(format!("{} is left in the trash, and {needs} needs it: {step:?}", step.image));
                    }
                    self.end(place)
                }
            }
            At::PutBack(_) => {
                world.restore(id);
                self.moved.remove(&id);
                self.end(place)
            }
            At::Purging(_) => {
                // Watchers and clones are looked at last, on the image itself.
                let entry = world.disks.get(&id).filter(|disk| !disk.in_place).and_then(|disk| disk.trash);
                let expired = entry.is_some_and(|entry| entry.until < world.now + world.skew[2]);
                if expired && !world.is_open(id) && !world.has_children(id) {
                    if let Some(needs) = world.needed(id) {
                        return Err(format!("{} is purged, and {needs} needs it: {step:?}", step.image));
                    }
                    world.purge(id);
                    self.purged += 1;
                }
                self.end(place)
            }
            At::Idle | At::Scanned(_) => unreachable!("there is a step"),
        })
    }

    fn act(&mut self, world: &mut World, step: &Step, place: usize, id: u64) -> At {
        match step.action {
            Action::Trash => {
                // By name: it is looked at whether that is the image.
                let named = world.in_place(world.disks.get(&id).map_or(usize::MAX, |disk| disk.name));
                if named != Some(id) {
                    return self.end(place);
                }
                world.enter_trash(id, DEFER);
                self.moved.insert(id, world.disks[&id].trash.expect("it was just put there").since);
                At::HalfMoved(place)
            }
            Action::Purge => At::Purging(place),
            Action::Restore => {
                world.restore(id);
                self.end(place)
            }
            Action::Snapshot => {
                world.snap(id);
                self.end(place)
            }
            Action::Protect | Action::Adopt => self.end(place),
        }
    }

    fn end(&mut self, place: usize) -> At {
        self.journal.insert(place, Noted::Ended);
        At::Step(place + 1)
    }

    /// A step that was begun before a crash.
    fn resume(&mut self, world: &mut World, step: &Step, place: usize, id: u64) -> At {
        let look = |world: &World| At::Looked(place, Box::new(world.pool(Some(id))));
        let Some(disk) = world.disks.get(&id) else { return self.end(place) };
        match (step.action, disk.trash) {
            (Action::Trash, Some(entry)) => {
                let ours = entry.until - entry.since == DEFER && self.moved.get(&id) == Some(&entry.since);
                match (ours, disk.in_place) {
                    (true, true) => {
                        world.restore(id);
                        look(world)
                    }
                    (true, false) => At::Moved(place),
                    (false, _) => self.end(place),
                }
            }
            _ => look(world),
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        matches!(self.at, At::Idle)
    }

    /// The name of the image that the next step is about.
    pub(super) fn at_image(&self, world: &World) -> Option<usize> {
        let step = self.plan.as_ref()?.steps.get(self.at.place()?)?;
        Some(world.disks.get(&step.image_id.parse().ok()?)?.name)
    }

    /// It is killed: what was in memory is gone.
    pub(super) fn crash(&mut self) {
        let step = matches!(self.at, At::Idle | At::Scanned(_));
        self.at = if step || self.plan.is_none() { At::Idle } else { At::Step(0) };
    }

    /// Puts back what the plan moved, while nothing is under way.
    pub(super) fn undo(&mut self, world: &mut World) -> Result<(), String> {
        if !matches!(self.at, At::Idle | At::Step(_)) {
            return Ok(());
        }
        for (id, since) in std::mem::take(&mut self.moved) {
            let Some(disk) = world.disks.get(&id).filter(|disk| disk.trash.is_some_and(|entry| entry.since == since))
            else {
                continue;
            };
            let free = world.in_place(disk.name).is_none_or(|other| other == id);
            if !world.restore(id) && free {
                return Err(format!("{id} was not put back"));
            }
        }
        (self.plan, self.at) = (None, At::Idle);
        Ok(())
    }

    /// Ends what is under way.
    pub(super) fn settle(&mut self, world: &mut World) -> Result<(), String> {
        while !matches!(self.at, At::Idle) {
            self.go_on(world)?;
        }
        Ok(())
    }

    /// Scans, plans and applies once, whole.
    pub(super) fn round(&mut self, world: &mut World) -> Result<(), String> {
        self.settle(world)?;
        self.go_on(world)?;
        self.settle(world)
    }
}

fn scan(facts: &Facts, findings: Vec<crate::finding::Finding>, world: &World) -> Scan {
    Scan {
        schema: 1,
        complete: true,
        started_at: world.ours(),
        fsid: facts.fsid.clone(),
        pools: vec!["images".into()],
        summary: Summary::of(facts, &findings, false),
        problems: Vec::new(),
        notes: Vec::new(),
        findings,
    }
}
