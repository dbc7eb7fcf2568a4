//! Going through a plan. Everything is looked at again before it is done, and written down before and after.

use std::collections::BTreeSet;

use jiff::Timestamp;
use rbd::Pool;

use super::{
    Acted, Applied, AppliedStep, AppliedSummary, ApplyError, Outcome,
    act::Scene,
    decide::{self, Verdict, policy_of},
    lock::PoolLocks,
};
use crate::{
    facts::DatabaseFacts,
    inventory::{GatherError, Sources, examine},
    journal::{Event, Journal, Target},
    plan::{self, Action, Health, Plan, PlanPool, Refusal, Step},
    scan::{ScanOptions, scan},
};

/// How a plan is gone through.
pub struct Run<'a> {
    /// Where the images and their rows are.
    pub sources: &'a Sources,
    /// How the cluster is.
    pub health: Health,
    /// Asked before each step whether to stop.
    pub stop: &'a (dyn Fn() -> bool + Send + Sync),
    /// Told of each step before it is looked at: its place in the plan, from 0.
    pub progress: &'a (dyn Fn(usize, &Step) + Send + Sync),
}

/// Looks at everything again, and says what applying the plan would do. Changes nothing.
///
/// # Errors
/// As [`apply`], but for locks and journals.
pub async fn rehearse(plan: &Plan, run: &Run<'_>) -> Result<Applied, ApplyError> {
    let knowledge = run.check(plan).await?;
    run.go(plan, &knowledge, &PoolLocks::none(), Hand::Off).await
}

/// Does what a plan says, or finishes what an earlier run of it has begun.
///
/// # Errors
/// Before anything is changed: [`ApplyError::Plan`], [`ApplyError::Refused`], [`ApplyError::OtherPool`],
/// [`ApplyError::OtherDatabases`], [`ApplyError::Lock`], [`ApplyError::Gather`]. After that only
/// [`ApplyError::Journal`], for what cannot be written down must not be done.
pub async fn apply(plan: &Plan, run: &Run<'_>, journal: &mut Journal) -> Result<Applied, ApplyError> {
    run.place(plan)?;
    let locks = PoolLocks::take(&plan.pools, &run.sources.pools, &journal.token()).await?;
    let applied = match run.check(plan).await {
        Ok(knowledge) => run.go(plan, &knowledge, &locks, Hand::Writing(journal)).await,
        Err(error) => Err(error),
    };
    locks.release().await;
    applied
}

/// Does what a plan of purges says, without a journal: there is nothing to undo, and nothing to finish that making the same
/// plan again would not find. With `dry`, says what it would.
///
/// # Errors
/// As [`apply`].
pub async fn purge(plan: &Plan, run: &Run<'_>, dry: bool) -> Result<Applied, ApplyError> {
    run.place(plan)?;
    if let Some(step) = plan.steps.iter().find(|step| step.action != Action::Purge) {
        let why = "it needs a journal".into();
        return Err(ApplyError::Refused(vec![Refusal { what: format!("step {}, {}", step.n, step.action), why }]));
    }
    if dry {
        return rehearse(plan, run).await;
    }
    let locks = PoolLocks::take(&plan.pools, &run.sources.pools, &uuid::Uuid::new_v4().to_string()).await?;
    let applied = match run.check(plan).await {
        Ok(knowledge) => run.go(plan, &knowledge, &locks, Hand::Acting).await,
        Err(error) => Err(error),
    };
    locks.release().await;
    applied
}

/// What a run may do.
enum Hand<'a> {
    /// Nothing.
    Off,
    /// Change the pools.
    Acting,
    /// Change the pools, and write down what it does.
    Writing(&'a mut Journal),
}

/// The open pool that a plan names, if it is still the same.
pub(super) fn find<'a>(pools: &'a [Pool], planned: &PlanPool) -> Option<&'a Pool> {
    pools
        .iter()
        .find(|pool| pool.name() == planned.name && pool.namespace() == planned.namespace && pool.id() == planned.id)
}

/// Sees that the pools of a plan or a journal are among those that are open.
pub(super) fn check_pools(planned: &[PlanPool], pools: &[Pool]) -> Result<(), ApplyError> {
    match planned.iter().find(|planned| find(pools, planned).is_none()) {
        None => Ok(()),
        Some(planned) => {
            let here = pools.iter().find(|pool| pool.name() == planned.name && pool.namespace() == planned.namespace);
            Err(ApplyError::OtherPool { planned: planned.clone(), here: here.map(Pool::id) })
        }
    }
}

impl Run<'_> {
    /// Sees that the plan is one for here and now, as far as it can be told without reading anything.
    ///
    /// # Errors
    /// [`ApplyError::Plan`], [`ApplyError::Refused`], [`ApplyError::OtherPool`].
    pub fn place(&self, plan: &Plan) -> Result<(), ApplyError> {
        let fsid = self.sources.pools.first().map_or("", |pool| pool.cluster().fsid());
        plan.verify(fsid, Timestamp::now())?;
        if !plan.refused.is_empty() {
            return Err(ApplyError::Refused(plan.refused.clone()));
        }
        check_pools(&plan.pools, &self.sources.pools)
    }

    /// Scans again: what would forbid the plan by now forbids applying it. What the databases know is kept for later looks.
    async fn check(&self, plan: &Plan) -> Result<Vec<DatabaseFacts>, ApplyError> {
        self.place(plan)?;
        let options = ScanOptions { policy: policy_of(&plan.policy), ..ScanOptions::default() };
        let now = scan(self.sources, &options, Timestamp::now(), &|_, _, _| {}).await?;
        let here: Vec<String> = now.summary.knowledge.iter().map(|database| database.name.clone()).collect();
        if here.iter().collect::<BTreeSet<_>>() != plan.databases.iter().collect::<BTreeSet<_>>() {
            return Err(ApplyError::OtherDatabases { planned: plan.databases.clone(), here });
        }
        let refused = plan::refused(&now, &self.health, &plan.policy);
        if !refused.is_empty() {
            return Err(ApplyError::Refused(refused));
        }
        Ok(now.summary.knowledge)
    }

    /// All steps; without a journal nothing is changed.
    async fn go(
        &self,
        plan: &Plan,
        knowledge: &[DatabaseFacts],
        locks: &PoolLocks,
        mut hand: Hand<'_>,
    ) -> Result<Applied, ApplyError> {
        let mut steps: Vec<AppliedStep> = Vec::new();
        let mut stopped = None;
        for (place, step) in plan.steps.iter().enumerate() {
            if (self.stop)() {
                stopped = Some("interrupted".to_owned());
                break;
            }
            if !locks.hold() {
                stopped = Some("the lock of the pool was lost".to_owned());
                break;
            }
            (self.progress)(place, step);
            let Some(pool) = self.sources.pools.iter().find(|pool| is_in(step, pool)) else {
                steps.push(AppliedStep::new(step, Outcome::Skipped, Some("its pool is not in the plan".into())));
                continue;
            };
            let scene = Scene { sources: self.sources, policy: &plan.policy, pool };
            let (applied, fatal) = match &mut hand {
                Hand::Off => rehearse_step(plan, step, &scene, knowledge).await,
                Hand::Acting => apply_step(plan, step, &scene, knowledge, None).await?,
                Hand::Writing(journal) => apply_step(plan, step, &scene, knowledge, Some(journal)).await?,
            };
            steps.push(applied);
            if fatal {
                stopped = steps.last().and_then(|step| step.why.clone());
                break;
            }
        }
        Ok(Applied {
            schema: 1,
            plan: plan.digest.clone(),
            dry_run: matches!(hand, Hand::Off),
            stopped,
            summary: AppliedSummary::of(plan.steps.len(), &steps),
            steps,
        })
    }
}

fn is_in(step: &Step, pool: &Pool) -> bool {
    pool.name() == step.pool && pool.namespace() == step.namespace
}

/// The look before a step, and the decision.
async fn look(
    plan: &Plan,
    step: &Step,
    scene: &Scene<'_>,
    knowledge: &[DatabaseFacts],
) -> Result<Verdict, GatherError> {
    let image = (step.image.clone(), step.image_id.clone());
    let (mut facts, problems) = examine(scene.sources, scene.pool, &[image]).await?;
    if facts.glance.databases.is_empty() {
        facts.glance.databases = knowledge.to_vec();
    }
    Ok(decide::before(plan, step, &facts, &problems, Timestamp::now()))
}

/// What would become of a step, and whether that ends the run.
async fn rehearse_step(
    plan: &Plan,
    step: &Step,
    scene: &Scene<'_>,
    knowledge: &[DatabaseFacts],
) -> (AppliedStep, bool) {
    match look(plan, step, scene, knowledge).await {
        Ok(Verdict::Go) => (AppliedStep::new(step, Outcome::Would, None), false),
        Ok(Verdict::Skip(why)) => (AppliedStep::new(step, Outcome::Skipped, Some(why)), false),
        Err(error) => (AppliedStep::new(step, Outcome::Skipped, Some(error.to_string())), true),
    }
}

/// What becomes of a step, and whether that ends the run.
async fn apply_step(
    plan: &Plan,
    step: &Step,
    scene: &Scene<'_>,
    knowledge: &[DatabaseFacts],
    mut journal: Option<&mut Journal>,
) -> Result<(AppliedStep, bool), ApplyError> {
    let record = journal.as_ref().and_then(|journal| journal.records().get(&step.n)).cloned();
    let mut write = |event| journal.as_mut().map_or(Ok(()), |journal| journal.write(Timestamp::now(), step.n, event));
    let mut acted = None;
    if let Some(record) = record {
        match record.last {
            Event::Done { .. } => return Ok((AppliedStep::new(step, Outcome::DoneBefore, None), false)),
            Event::Undoing | Event::Undone => {
                let why = Some("it was undone; make a new plan".to_owned());
                return Ok((AppliedStep::new(step, Outcome::Skipped, why), false));
            }
            Event::Intent(_) | Event::Skipped { .. } | Event::Failed { .. } => {
                acted = match scene.resume(step, &record).await {
                    Ok(acted) => acted,
                    Err(error) => Some(Acted::failed(&error)),
                };
            }
        }
    }
    let acted = match acted {
        Some(acted) => acted,
        None => match look(plan, step, scene, knowledge).await {
            Ok(Verdict::Go) => {
                write(Event::Intent(Target::of(step)))?;
                if step.action == Action::Trash {
                    prepare(scene.pool).await;
                }
                scene.act(step).await
            }
            Ok(Verdict::Skip(why)) => Acted::Skipped { why },
            // Nothing was tried: a later run may.
            Err(error) => return Ok((AppliedStep::new(step, Outcome::Skipped, Some(error.to_string())), true)),
        },
    };
    let (event, applied, fatal) = match acted {
        Acted::Done { trashed_at } => {
            (Event::Done { trashed_at, bytes: step.bytes }, AppliedStep::new(step, Outcome::Done, None), false)
        }
        Acted::Skipped { why } => {
            (Event::Skipped { why: why.clone() }, AppliedStep::new(step, Outcome::Skipped, Some(why)), false)
        }
        Acted::Failed { why, fatal } => {
            (Event::Failed { why: why.clone() }, AppliedStep::new(step, Outcome::Failed, Some(why)), fatal)
        }
    };
    write(event)?;
    Ok((applied, fatal))
}

/// What cannot be prepared fails when it is needed, and tells why.
async fn prepare(pool: &Pool) {
    if let Err(error) = pool.prepare_trash().await {
        tracing::debug!(%error, pool = %pool, "the trash could not be prepared");
    }
}
